/** What a start of the command line loads, as Node's own loader tells it: how fast help appears, without a clock. */
import { fileURLToPath } from "node:url"

const preloaded = fileURLToPath(new URL("./loads.mjs", import.meta.url))

/** Makes the command say what it loads. */
export const env = { NODE_OPTIONS: `--import ${preloaded}` }

export interface Loads {
  /** URLs, in order. */
  readonly modules: ReadonlyArray<string>
  /** Relative imports that went the long way, with who imports. */
  readonly lookUps: ReadonlyArray<string>
}

export const parse = (stderr: string): Loads => {
  const after = (word: string) =>
    stderr.split("\n").filter((line) => line.startsWith(word)).map((line) => line.slice(word.length))
  return { modules: after("loaded "), lookUps: after("looked up ") }
}

/** What no help needs: whatever moves guests, talks to their processes, or shows how it goes. */
export const heavy =
  /\.node$|userfaultfd-napi|(?<!src|dist)\/native\/|sql\.js|@effect\/platform-node|\/effect\/dist\/(rpc|socket|observability|workers|http\/Http)|\/(src|dist)\/(actors|protocol|qemu|telemetry|web|guests\/builtin)\/|\/(src|dist)\/(Migration|SendGuest|ReceiveGuest)\./
