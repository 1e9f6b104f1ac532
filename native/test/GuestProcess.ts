// The other process of a test (Guest.cc): started, told what to do, and what it answers.
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as Uffd from "userfaultfd-napi"
import { P } from "./Kernel.ts"

const { constants } = Uffd

const commands = { touch: 0, write: 1, fork: 2, remap: 3, unmap: 4, advise: 5 } as const

export class GuestProcess {
  private readonly child: ChildProcess
  private readonly socket: Uffd.Descriptor
  readonly uffd: Uffd.Descriptor
  readonly address: number
  readonly pid: number

  private constructor(child: ChildProcess, socket: Uffd.Descriptor, uffd: Uffd.Descriptor, hello: Float64Array) {
    this.child = child
    this.socket = socket
    this.uffd = uffd
    this.address = hello[0]!
    this.pid = hello[1]!
  }

  static async start(
    program: string,
    options: { readonly features: number; readonly mode: number; readonly pages: number }
  ): Promise<GuestProcess> {
    const [ours, theirs] = Uffd.socketpair(constants.SOCK_SEQPACKET)
    // The program waits in its reads.
    Uffd.setNonBlocking(theirs, false)
    const args = [options.features, options.mode, options.pages].map(String)
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", theirs.fd] })
    theirs.close()
    await readable(ours)
    const bytes = new Uint8Array(24)
    const { descriptors } = Uffd.receiveDescriptors(ours, bytes)
    if (descriptors.length !== 1) throw new Error(`the guest did not start: ${String(await once(child, "exit"))}`)
    const words = Float64Array.from(new BigUint64Array(bytes.buffer), Number)
    return new GuestProcess(child, ours, descriptors[0]!, words)
  }

  /** The address of a page. */
  at(page: number): number {
    return this.address + page * P
  }

  /** Starts one command; its answer may need events to be served first. One at a time. */
  async run(command: keyof typeof commands, address: number, length = 0, value = 0): Promise<number> {
    const request = BigUint64Array.from([commands[command], address, length, value].map(BigInt))
    Uffd.write(this.socket, new Uint8Array(request.buffer), 0, 32)
    await readable(this.socket)
    const answer = new BigInt64Array(1)
    if (Uffd.read(this.socket, new Uint8Array(answer.buffer), 0, 8) !== 8) throw new Error("the guest is gone")
    return Number(answer[0])
  }

  async kill(): Promise<void> {
    const exited = once(this.child, "exit")
    this.child.kill("SIGKILL")
    await exited
  }

  async end(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.kill()
    this.uffd.close()
    this.socket.close()
  }
}

/** Resolves when there is something to be read. */
export const readable = (descriptor: Uffd.Descriptor): Promise<void> =>
  new Promise((resolve) => {
    const poller = new Uffd.Poller(descriptor)
    poller.watch(constants.READABLE, () => {
      poller.close()
      resolve()
    })
  })
