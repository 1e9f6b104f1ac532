/**
 * Takes the device state of a stream apart by the description that came with it: where each section lies, and whether
 * headers, sizes and footers agree. Sections do not say how long they are, so without the description they stay whole.
 */
import { Record } from "./Constants.ts"

export interface DeviceSection {
  readonly idstr: string
  readonly instance: number
  readonly version: number
  /** Bytes of the section's data, without header and footer. */
  readonly bytes: number
}

type Json = null | boolean | number | string | ReadonlyArray<Json> | { readonly [name: string]: Json }

const field = (value: Json | undefined, name: string): Json | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as { readonly [name: string]: Json })[name]
    : undefined

const list = (value: Json | undefined): ReadonlyArray<Json> => Array.isArray(value) ? value as ReadonlyArray<Json> : []
const count = (value: Json | undefined, otherwise: number): number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : otherwise

/** A description is no deeper than this: subsections of subsections of a device. */
const MAX_DEPTH = 16

/** Bytes on the wire of a device or subsection, without what precedes its fields. */
const size = (device: Json, depth: number): number => {
  if (depth > MAX_DEPTH) return Number.NaN
  let total = 0
  for (const one of list(field(device, "fields"))) {
    total += count(field(one, "size"), Number.NaN) * count(field(one, "array_len"), 1)
  }
  for (const one of list(field(device, "subsections"))) {
    const name = field(one, "vmsd_name")
    total += typeof name === "string" ? 6 + name.length + size(one, depth + 1) : Number.NaN
  }
  return total
}

/** The sections in order, or why the bytes are not what the description says. */
export const parse = (devices: Uint8Array, description: Uint8Array): ReadonlyArray<DeviceSection> | string => {
  let json: Json
  try {
    json = JSON.parse(new TextDecoder().decode(description)) as Json
  } catch {
    return "the description is no JSON"
  }
  const view = new DataView(devices.buffer, devices.byteOffset, devices.byteLength)
  const sections: Array<DeviceSection> = []
  let at = 0
  for (const device of list(field(json, "devices"))) {
    const name = field(device, "name")
    const bytes = size(device, 0)
    if (typeof name !== "string" || !Number.isSafeInteger(bytes)) return `device ${sections.length} is not described`
    const encoded = new TextEncoder().encode(name)
    const head = 1 + 4 + 1 + encoded.length + 8
    const end = at + head + bytes + 5
    if (end > devices.length) return `section ${name} ends ${end - devices.length} bytes behind the device state`
    if (view.getUint8(at) !== Record.SectionFull || view.getUint8(at + 5) !== encoded.length) {
      return `no section begins at ${at}, where ${name} is described`
    }
    if (!encoded.every((byte, i) => devices[at + 6 + i] === byte)) return `section ${name} is not at ${at}`
    if (view.getUint8(end - 5) !== Record.Footer || view.getUint32(end - 4) !== view.getUint32(at + 1)) {
      return `section ${name} does not end at ${end}`
    }
    const numbers = at + 6 + encoded.length
    sections.push({ idstr: name, instance: view.getUint32(numbers), version: view.getUint32(numbers + 4), bytes })
    at = end
  }
  if (at !== devices.length) return `${devices.length - at} bytes of device state are not described`
  return sections
}
