/** Figures as people read them. */

const digits = (value) => value < 10 ? 1 : 0

/** Milliseconds. */
export const millis = (value) =>
  value === null || value === undefined
    ? "–"
    : value < 1000
    ? `${value.toFixed(digits(value))} ms`
    : `${(value / 1000).toFixed(2)} s`

/** Microseconds. */
export const micros = (value) =>
  value === null || value === undefined ? "–" : value < 1000 ? `${value.toFixed(0)} µs` : millis(value / 1000)

export const bytes = (value) => {
  const power = value < 1 ? 0 : Math.min(4, Math.floor(Math.log2(value) / 10))
  const scaled = value / 1024 ** power
  return `${power === 0 ? scaled : scaled.toFixed(digits(scaled))} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`
}

export const count = (value) => value.toLocaleString("en-US").replaceAll(",", "\u202f")

export const percent = (part, whole) => whole === 0 ? "–" : `${Math.floor(1000 * part / whole) / 10} %`

export const rate = (bytesPerSecond) => bytesPerSecond === null ? "unlimited" : `${bytes(bytesPerSecond)}/s`

/** Text for HTML. */
export const escape = (text) =>
  String(text).replace(
    /[&<>"']/g,
    (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;" })[c]
  )
