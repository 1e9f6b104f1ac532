/**
 * The memory of loaded guests as a migration reads and writes it: through the tokens, without the guest's help.
 */
import type { LoadedBlock } from "../../src/guests/VcpuMessages.ts"
import * as Binding from "../../src/native/Binding.ts"

/** Why a test of the addon does not run; `false`: it does. */
export const noAddon: string | false = Binding.load() === undefined ? `no addon: ${Binding.failure()}` : false

/** Both ways a guest's memory can be held; the addon's where there is one. */
export const variants: ReadonlyArray<"auto" | "none"> = noAddon === false ? ["auto", "none"] : ["none"]

export const read = (block: LoadedBlock, offset: number, length: number): Uint8Array => {
  const into = new Uint8Array(length)
  if (block.memory._tag === "Shared") into.set(new Uint8Array(block.memory.buffer, offset, length))
  else check(withRegion(block.memory.token, (region) => region.read(offset, into, 0, length)), length)
  return into
}

export const write = (block: LoadedBlock, offset: number, bytes: Uint8Array): void => {
  if (block.memory._tag === "Shared") new Uint8Array(block.memory.buffer).set(bytes, offset)
  else check(withRegion(block.memory.token, (region) => region.write(offset, bytes, 0, bytes.length)), bytes.length)
}

/** What a migration does, in one go. */
export const copy = (from: ReadonlyArray<LoadedBlock>, to: ReadonlyArray<LoadedBlock>): void => {
  const chunk = 2 ** 20
  for (const source of from) {
    const destination = to.find(({ idstr }) => idstr === source.idstr)!
    for (let offset = 0; offset < source.length; offset += chunk) {
      write(destination, offset, read(source, offset, Math.min(chunk, source.length - offset)))
    }
  }
}

const withRegion = <A>(token: bigint, body: (region: ReturnType<Binding.Addon["Region"]["adopt"]>) => A): A => {
  const region = Binding.require().Region.adopt(token)
  try {
    return body(region)
  } finally {
    region.close()
  }
}

const check = (result: number, expected: number) => {
  if (result !== expected) throw new Error(`moved ${result} of ${expected} bytes`)
}
