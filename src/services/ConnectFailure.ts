/**
 * What to say when a link cannot be made: the system's own word for it, where, and what helps, which depends on that word.
 * A receiver that has not been started yet is by far the most frequent reason.
 */
import { LinkFailed } from "../MigrationError.ts"

const connectRemedies: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nobody listens there: start `postcopy receive` first",
  ENOENT: "nobody listens there: start `postcopy receive` first",
  EACCES: "this user may not use it: receive at a path, or as a user, that this one may use",
  EAGAIN: "its receiver takes one connection and has one: start another receiver"
}

const listenRemedies: Readonly<Record<string, string>> = {
  EACCES: "this user may not listen there: choose a port from 1024 on, or a directory of its own",
  EADDRNOTAVAIL: "give an address of this host, or 0.0.0.0 for all of them",
  ENOENT: "create its directory first",
  ENOTDIR: "create its directory first"
}

const other = {
  connect: "check the address, and that a firewall lets it through",
  listen: "choose another place"
}

/** Why there is no connection to `uri`. */
export const toConnect = (uri: string, code: string, said = code): LinkFailed =>
  new LinkFailed({ code, detail: `cannot connect to ${uri}: ${said}; ${connectRemedies[code] ?? other.connect}` })

/** Why nobody can listen at `uri`. */
export const toListen = (uri: string, code: string, said = code): LinkFailed =>
  new LinkFailed({ code, detail: `cannot listen at ${uri}: ${said}; ${listenRemedies[code] ?? other.listen}` })

/** Why a name is no address. */
export const toResolve = (host: string, code: string): LinkFailed =>
  new LinkFailed({ code, detail: `cannot resolve host "${host}" (${code}); check its spelling, or give its address` })
