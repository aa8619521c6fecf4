// The WASM module gives byte strings as arrays of numbers or as typed arrays.
export function bytes(value) {
  return value instanceof Uint8Array ? value : Uint8Array.from(value);
}
