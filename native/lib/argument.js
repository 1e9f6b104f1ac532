// The typed errors of wrong arguments, with the codes that the native functions use.
"use strict"

const fail = (Kind, code, message) => {
  const error = new Kind(message)
  error.code = code
  return error
}

exports.typeError = (message) => fail(TypeError, "ERR_INVALID_ARG_TYPE", message)
exports.rangeError = (message) => fail(RangeError, "ERR_OUT_OF_RANGE", message)

/** A safe integer of at least `least`. */
exports.integer = (value, name, least = 0) => {
  if (typeof value !== "number") throw exports.typeError(`${name} is not a number`)
  if (!Number.isSafeInteger(value) || value < least) {
    throw exports.rangeError(`${name} is not an integer of at least ${least}: ${value}`)
  }
  return value
}
