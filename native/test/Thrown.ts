// The error that a call throws.
import type { SystemError } from "userfaultfd-napi"

export const thrown = (body: () => unknown): SystemError => {
  try {
    body()
  } catch (error) {
    return error as SystemError
  }
  throw new Error(`nothing was thrown by ${body.toString()}`)
}

/** Its code, to be compared in one line. */
export const codeOf = (body: () => unknown): string => thrown(body).code
