/** How a guest gets its vCPU thread. The default is a worker thread that loads the guest's module. */
import * as Context from "effect/Context"
import * as Vcpu from "../guests/Vcpu.ts"

export interface GuestThreadsShape {
  readonly load: typeof Vcpu.load
}

export const GuestThreads: Context.Reference<GuestThreadsShape> = Context.Reference("postcopy/services/GuestThreads", {
  defaultValue: () => ({ load: Vcpu.load })
})
