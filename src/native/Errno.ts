/** Names of the errnos that sockets, mappings and userfaultfd give, for messages on hosts with and without the addon. */
import { constants } from "node:os"

const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number as number, name]))

/** Symbolic name of a positive errno. */
export const errnoName = (errno: number): string => names.get(errno) ?? `errno ${errno}`
