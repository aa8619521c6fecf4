// node move.mjs test|build|check [PACKAGE] [--walrus ADDRESS]
//
//   test    runs the unit tests and ends with "N passed, N failed"
//   build   compiles and writes PACKAGE/bytecode/ (the module and its digests)
//   check   compiles and compares with PACKAGE/bytecode/; with --walrus, only prints the digests for a
//           network whose Walrus package has that original id
//
// Nothing is fetched: the compiler is WebAssembly from node_modules, and all that a package depends on is in interface/.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

function fail(text) {
  console.error(`move.mjs: ${text}`);
  process.exit(1);
}

const [mode, name = "archive", option, walrus] = process.argv.slice(2);
if (!["test", "build", "check"].includes(mode) || (option && (option !== "--walrus" || !/^0x[0-9a-f]{64}$/.test(walrus))))
  fail("usage: node move.mjs test|build|check [PACKAGE] [--walrus ADDRESS]");
const root = join(here, name);
if (!existsSync(join(root, "Move.toml"))) fail(`no package ${name}`);
const tool = await import("@zktx.io/sui-move-builder/full").catch(() => fail("run `npm ci --ignore-scripts` in contracts/ first"));

// The Move files of a package, by path inside it.
function sources(dir) {
  const files = {};
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.move$|^Move\.toml$/.test(entry.name)) continue;
    const file = join(entry.parentPath ?? entry.path, entry.name);
    files[file.slice(dir.length + 1)] = readFileSync(file, "utf8");
  }
  return files;
}

class Interfaces extends tool.MovePackageFetcher {
  async fetch(what) { throw new Error(`refused to fetch ${what}`); }
  async fetchFile(what) { throw new Error(`refused to fetch ${what}`); }
  fetchLocal = async (path) => {
    const files = sources(join(here, "interface", basename(path)));
    if (walrus && basename(path) === "walrus")
      files["Move.toml"] = files["Move.toml"].replace(/^walrus = ".*"$/m, `walrus = "${walrus}"`);
    return files;
  };
}

await tool.initMovePackageBuilder();
const input = { files: sources(root), network: "mainnet", fetcher: new Interfaces(), lintFlag: "default" };

if (mode === "test") {
  const result = await tool.testMovePackage(input);
  if ("error" in result) fail(result.error);
  const text = result.output.replace(/\x1b\[[0-9;]*m/g, "");
  process.stdout.write(text);
  const counts = text.match(/Total tests: (\d+); passed: (\d+); failed: (\d+)/);
  if (!counts) fail("the runner gave no totals");
  console.log(`${counts[2]} passed, ${counts[3]} failed`);
  process.exit(result.passed && Number(counts[2]) > 0 && Number(counts[3]) === 0 ? 0 : 1);
}

const built = await tool.dumpMovePackage(input);
if ("error" in built) fail(built.error);
if (built.warnings) console.error(built.warnings);
if (built.modules.length !== 1) fail(`expected one module, got ${built.modules.length}`);
const code = Buffer.from(built.modules[0], "base64");
const digests = [
  `compiler ${await tool.getPinnedSuiMoveVersion()}`,
  `bytes ${code.length}`,
  `sha256 ${createHash("sha256").update(code).digest("hex")}`,
  `package ${Buffer.from(built.digest).toString("hex")}`,
  ...built.dependencies.map((id) => `dependency ${id}`),
].join("\n") + "\n";

const bytecode = join(root, "bytecode");
const paths = { code: join(bytecode, `${name}.mv`), digests: join(bytecode, "digests.txt") };
if (mode === "build") {
  mkdirSync(bytecode, { recursive: true });
  writeFileSync(paths.code, code);
  writeFileSync(paths.digests, digests);
  process.stdout.write(digests);
} else if (walrus) {
  process.stdout.write(digests);
} else {
  if (readFileSync(paths.digests, "utf8") !== digests || !readFileSync(paths.code).equals(code))
    fail(`${name}/bytecode is not what the sources give; run \`node move.mjs build ${name}\` and commit. Now:\n${digests}`);
  console.log(`${name}: the committed bytecode is what the sources give`);
}
