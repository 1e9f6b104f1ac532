// Garbage collections on demand. Finalizers of native objects run in a later turn of the event loop.
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** Collects until `done`, at most ten times: V8 may keep what is still on a stack or in a cache for a cycle or two. */
export const collectGarbage = async (done: () => boolean): Promise<void> => {
  for (let i = 0; i < 10 && !done(); i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setImmediate(resolve))
  }
}
