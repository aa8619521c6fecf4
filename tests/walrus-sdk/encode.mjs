// The published encoder on what stands on standard input: a line {"shards", "data"} (base64)
// each, answered by a line with the blob id and hashes over everything it produced.
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import init, { BlobEncoder } from '@mysten/walrus-wasm';
import { bytes } from './bytes.mjs';

await init();

/** kp and ks: symbols of a column and of a row of the source matrix. */
function sourceSymbols(shards) {
  const faulty = Math.floor((shards - 1) / 3);
  return [shards - 2 * faulty, shards - faulty];
}

/** Length of a sliver's BCS: ULEB128 length, data, symbol size, index. */
function bcsLength(data) {
  let prefix = 1;
  for (let rest = data >> 7; rest > 0; rest >>= 7) prefix += 1;
  return prefix + data + 4;
}

function encode(shards, data) {
  const [rows, columns] = sourceSymbols(shards);
  let symbol = Math.ceil(Math.max(data.length, 1) / (rows * columns));
  symbol += symbol % 2;
  const buffers = (symbols) =>
    Array.from({ length: shards }, () => new Uint8Array(bcsLength(symbols * symbol)));
  const [primary, secondary] = [buffers(columns), buffers(rows)];
  const encoder = new BlobEncoder(shards);
  const [metadata, root] = encoder.encode(data, primary, secondary);
  const [id] = encoder.compute_metadata(data);
  const hash = (all) => {
    const sum = createHash('sha256');
    for (const buffer of all) sum.update(buffer);
    return sum.digest('hex');
  };
  const hashes = metadata.metadata.V1.hashes.flatMap((pair) => [
    bytes(pair.primary_hash.Digest),
    bytes(pair.secondary_hash.Digest),
  ]);
  // Any kp primary slivers give the data back: the last ones need all the arithmetic.
  const decoded = new Uint8Array(data.length);
  encoder.decode(id, BigInt(data.length), primary.slice(shards - rows), decoded);
  return {
    blobId: Buffer.from(bytes(id)).toString('base64url'),
    root: Buffer.from(bytes(root.Digest)).toString('hex'),
    primary: hash(primary),
    secondary: hash(secondary),
    hashes: hash(hashes),
    decodes: Buffer.compare(decoded, data) === 0,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { shards, data } = JSON.parse(line);
  console.log(JSON.stringify(encode(shards, Buffer.from(data, 'base64'))));
}
