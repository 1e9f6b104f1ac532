/**
 * What a migration works with, as `postcopy/services`: each has a real default, so that nothing has to be provided, and
 * can be replaced by a layer, for a link of one's own or other time limits. Replacements without kernel and processes are
 * in `postcopy/testing`.
 */
export {
  DaemonProcess,
  type DaemonProcessShape,
  type HandoverRequest,
  type UmemDaemonHandle
} from "./services/DaemonProcess.ts"
export { GuestMemory, type GuestMemoryShape, type SourceBlock } from "./services/GuestMemory.ts"
export { GuestThreads, type GuestThreadsShape } from "./services/GuestThreads.ts"
export { AGAIN, type Link } from "./services/Link.ts"
export { type LinkError, Links, type LinksShape, type Listener } from "./services/Links.ts"
export { Prefault, type PrefaultShape } from "./services/Prefault.ts"
export { defaults as defaultSettings, Settings, type SettingsShape } from "./services/Settings.ts"
export { type FaultChannel, type RegisteredBlock, type Registration, Userfaultfd } from "./services/Userfaultfd.ts"
