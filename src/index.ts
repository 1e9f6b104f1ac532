/**
 * Post-copy live migration of running guests over Linux userfaultfd: `Guest` defines and runs guests, `migrate` sends
 * one, `receive` takes one.
 */
export * as Guest from "./Guest.ts"
export type { GuestHandle } from "./GuestHandle.ts"
export { GuestError } from "./guests/GuestError.ts"
export {
  type GuestOptions,
  type Incoming,
  listen,
  migrate,
  type MigrateOptions,
  receive,
  type ReceiveOptions
} from "./Migration.ts"
export * from "./MigrationError.ts"
export { Observation } from "./Observation.ts"
export { Report, Status } from "./Report.ts"
