/**
 * A whole x86 machine as a guest: npm's v86, unchanged, its processor and its memory in WebAssembly, with a ROM of our own
 * (rom.S) that verifies its memory for ever and ticks on the serial port.
 *
 *   postcopy run ./examples/v86/guest.ts --control /tmp/pc.sock
 *   postcopy call --control /tmp/pc.sock '{"op": "status"}'
 *
 * Registers, page tables and RAM all lie in the linear memory, which moves page by page. What v86 keeps in JavaScript is
 * its devices. This ROM uses one, the serial port, so its state is the device state; a machine with an operating system
 * would send all of them. Compiled code would stay behind, so the machine runs interpreted.
 */
import { readFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { Guest } from "postcopy"
import { V86 } from "v86"

/** What `as` makes of rom.S; a test assembles it again. */
export const rom =
  "+i5mDwEWmAAPIMAMAQ8iwGbqGAAPAAgAZrgQAI7YjsCO0DHJvwAAEACJP4PHBIH/AAAwAHLzjZmxeTeevwAAEACJ+DHIOQd1Ion4MdiJB4PH" +
  "BIH/AAAwAHLnidn/BQQGAABmuvgDsC7u68uJPQAGAABmuvgDsEXu9Ov9jXQmAJAAAAAAAAAAAP//AAAAms8A//8AAACSzwAXAIAADwA="

/** Far jump to the ROM's beginning: what the processor finds at its reset vector. */
const resetVector = [0xea, 0x00, 0x00, 0x00, 0xf0]
const RESET_AT = 0xfff0

const BAD = 0x600
const PASSES = 0x604

/** The parts of v86 that its types leave out. */
interface Machine {
  readonly cpu: {
    readonly main_loop: () => number
    readonly read32s: (address: number) => number
    readonly devices: {
      readonly uart0: { readonly get_state: () => Array<unknown>; readonly set_state: (state: Array<unknown>) => void }
    }
  }
}

interface State {
  /** What came out of the serial port so far. */
  serial: { ticks: number; errors: number }
}

interface Exports {
  readonly machine: Machine
  readonly onSerial: (listener: (byte: number) => void) => void
}

/** `WebAssembly`, for which this project has no types: those of browsers say too much else. */
const engine = (globalThis as unknown as {
  readonly WebAssembly: {
    readonly instantiate: (bytes: Uint8Array, imports: unknown) => Promise<{
      readonly instance: { readonly exports: Record<string, any> }
    }>
  }
}).WebAssembly

export default Guest.wasm<State, Exports>({
  maximum: 64 * 2 ** 20,

  instantiate: async () => {
    const image = new Uint8Array(64 * 1024)
    image.set(Buffer.from(rom, "base64"))
    image.set(resetVector, RESET_AT)
    const wasm = await readFile(createRequire(import.meta.url).resolve("v86/build/v86.wasm"))
    let memory: { readonly buffer: ArrayBuffer; readonly grow: (pages: number) => number } | undefined
    const emulator = new V86({
      wasm_fn: async (imports: unknown) => {
        const { instance } = await engine.instantiate(wasm, imports)
        memory = instance.exports["memory"]
        return instance.exports as never
      },
      bios: { buffer: image.buffer },
      memory_size: 4 * 2 ** 20,
      vga_memory_size: 2 ** 20,
      autostart: false,
      disable_jit: true,
      disable_speaker: true,
      disable_keyboard: true,
      disable_mouse: true
    })
    await new Promise<void>((resolve) => emulator.add_listener("emulator-loaded", () => resolve()))
    return {
      memory: memory!,
      exports: {
        machine: (emulator as unknown as { readonly v86: Machine }).v86,
        onSerial: (listener) => emulator.add_listener("serial0-output-byte", listener)
      }
    }
  },

  start: (ctx) => {
    ctx.state = { serial: { ticks: 0, errors: 0 } }
    listen(ctx)
  },

  // About a millisecond of the machine's own work.
  step: (ctx) => {
    const idle = ctx.exports.machine.cpu.main_loop()
    return idle > 0 ? { restMillis: Math.min(idle, 10) } : undefined
  },

  call: (ctx, request) => {
    if (request?.op !== "status") throw new TypeError("the machine knows {op: \"status\"}")
    const { cpu } = ctx.exports.machine
    // Read from the machine's memory: at a destination this is a page fault like any other.
    return { passes: cpu.read32s(PASSES), badAddress: cpu.read32s(BAD), serial: ctx.state.serial }
  },

  save: (ctx) => {
    const uart = ctx.exports.machine.cpu.devices.uart0.get_state()
    return new TextEncoder().encode(JSON.stringify({ uart, serial: ctx.state.serial }))
  },

  restore: (ctx, bytes) => {
    const { serial, uart } = JSON.parse(new TextDecoder().decode(bytes))
    ctx.state = { serial }
    ctx.exports.machine.cpu.devices.uart0.set_state(uart)
    listen(ctx)
  }
})

const listen = (ctx: { readonly state: State; readonly exports: Exports }) =>
  ctx.exports.onSerial((byte) => {
    if (byte === ".".charCodeAt(0)) ctx.state.serial.ticks++
    else ctx.state.serial.errors++
  })
