/** URIs of a migration: `tcp:HOST:PORT`, `unix:PATH`, `fd:N`; `exec:` is known and refused, everything else is unknown. */
import * as Result from "effect/Result"
import { InvalidArgument, Unsupported } from "../MigrationError.ts"

export type Endpoint =
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number }
  | { readonly _tag: "Unix"; readonly path: string }
  | { readonly _tag: "Fd"; readonly fd: number }

const invalid = (detail: string) => Result.fail(new InvalidArgument({ detail }))

/** Longest path a unix socket address takes: sockaddr_un has 108 bytes, one of them ends the string. */
const MAX_UNIX_PATH = 107

/** Parses a URI. IPv6 hosts may stand in brackets. */
export const parse = (uri: string): Result.Result<Endpoint, InvalidArgument | Unsupported> => {
  const colon = uri.indexOf(":")
  const scheme = colon < 0 ? "" : uri.slice(0, colon)
  const rest = uri.slice(colon + 1)
  switch (scheme) {
    case "tcp": {
      const at = rest.lastIndexOf(":")
      const port = rest.slice(at + 1)
      const host = rest.slice(0, Math.max(at, 0)).replace(/^\[(.*)\]$/, "$1")
      if (at < 0 || !/^\d{1,5}$/.test(port) || Number(port) > 65535) {
        return invalid(`invalid URI "${uri}": expected tcp:HOST:PORT with a port from 0 to 65535`)
      }
      return Result.succeed({ _tag: "Tcp", host: host === "" ? "0.0.0.0" : host, port: Number(port) })
    }
    case "unix": {
      if (rest === "" || rest.includes("\0")) return invalid(`invalid URI "${uri}": expected unix:PATH`)
      if (Buffer.byteLength(rest) > MAX_UNIX_PATH) {
        return invalid(
          `invalid URI "${uri}": a unix socket's path has at most ${MAX_UNIX_PATH} bytes; use a shorter one`
        )
      }
      return Result.succeed({ _tag: "Unix", path: rest })
    }
    case "fd":
      if (!/^\d{1,9}$/.test(rest)) return invalid(`invalid URI "${uri}": expected fd:N, a descriptor's number`)
      return Result.succeed({ _tag: "Fd", fd: Number(rest) })
    case "exec":
      return Result.fail(
        new Unsupported({
          detail: `exec: cannot carry a post-copy migration (ENOSYS): a pipe goes one way only; use fd:N with a socket`
        })
      )
    default:
      return invalid(`unknown URI "${uri}": expected tcp:HOST:PORT, unix:PATH or fd:N`)
  }
}
