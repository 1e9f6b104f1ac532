/**
 * What a host brings to post-copy, looked at one thing at a time: kernel, Node, addon, each way to a userfaultfd, its
 * features and ioctls, huge pages. A finding that is missing names the command that fixes it. Nothing is changed.
 */
import { accessSync, constants as fsConstants, readFileSync } from "node:fs"
import { release, userInfo } from "node:os"
import * as Binding from "../native/Binding.ts"

export interface Finding {
  readonly name: string
  /** `note`: good to know, nothing depends on it. */
  readonly state: "ok" | "missing" | "note"
  readonly detail: string
  /** The command that mends it. */
  readonly fix?: string
}

export interface Host {
  readonly kernel: string
  readonly node: string
  readonly addon: boolean
  readonly userfaultfd: { readonly device: boolean; readonly syscall: boolean; readonly userModeOnly: boolean }
  readonly features: ReadonlyArray<string>
  readonly ioctls: ReadonlyArray<string>
}

export interface Examination {
  /** Whether a migration can arrive here; sending needs none of it. */
  readonly canReceive: boolean
  readonly host: Host
  readonly findings: ReadonlyArray<Finding>
}

interface Found {
  readonly findings: ReadonlyArray<Finding>
  readonly features: ReadonlyArray<string>
  readonly ioctls: ReadonlyArray<string>
  readonly ways: Host["userfaultfd"]
}

const device = "/dev/userfaultfd"
const sysctl = "/proc/sys/vm/unprivileged_userfaultfd"

/** UFFDIO_* numbers of `<linux/userfaultfd.h>`, by bit of a range's ioctl mask. */
const ioctlNames = ["REGISTER", "UNREGISTER", "WAKE", "COPY", "ZEROPAGE", "MOVE", "WRITEPROTECT", "CONTINUE", "POISON"]

/** Without these no migration can arrive: pages are copied in, and removals must be told. */
const neededIoctls: ReadonlyArray<string> = ["WAKE", "COPY", "ZEROPAGE"]
const neededFeatures: ReadonlyArray<string> = ["EVENT_REMOVE"]

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8").trim()
  } catch {
    return undefined
  }
}

const isOpenTo = (path: string): boolean => {
  try {
    accessSync(path, fsConstants.R_OK | fsConstants.W_OK)
    return true
  } catch {
    return false
  }
}

export const examine = (): Examination => {
  const addon = Binding.load()
  const found: Found = addon === undefined
    ? { findings: noAddon(), features: [], ioctls: [], ways: noWays }
    : userfaultfd(addon)
  const needed = neededIoctls.every((name) => found.ioctls.includes(name)) &&
    neededFeatures.every((name) => found.features.includes(name))
  return {
    canReceive: needed && (found.ways.device || found.ways.syscall || found.ways.userModeOnly),
    host: {
      kernel: release(),
      node: process.versions.node,
      addon: addon !== undefined,
      userfaultfd: found.ways,
      features: found.features,
      ioctls: found.ioctls
    },
    findings: [
      kernel(release()),
      { name: "Node.js", state: "ok", detail: `${process.versions.node}, ${process.execPath}` },
      ...found.findings.map(found.ways.device || found.ways.syscall || found.ways.userModeOnly ? relieved : same),
      ...hugePages()
    ]
  }
}

/** Removals are told since 4.11, faults of user mode alone since 5.11: with an older kernel only root can receive. */
export const kernel = (version: string): Finding => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  const isAtLeast = (a: number, b: number) => major > a || (major === a && minor >= b)
  if (isAtLeast(5, 11)) return { name: "kernel", state: "ok", detail: `Linux ${version}` }
  const fix = "boot Linux 5.11 or newer; it needs CONFIG_USERFAULTFD=y"
  return isAtLeast(4, 14)
    ? { name: "kernel", state: "note", detail: `Linux ${version}: works for root only`, fix }
    : { name: "kernel", state: "missing", detail: `Linux ${version} is too old`, fix }
}

/** One way to a userfaultfd is enough: the others are good to know, with what would open them. */
const relieved = (finding: Finding): Finding =>
  finding.state === "missing" && waysThere.includes(finding.name)
    ? { ...finding, state: "note", detail: `${finding.detail}; not needed, there is another way` }
    : finding

const same = (finding: Finding): Finding => finding

const noWays = { device: false, syscall: false, userModeOnly: false }

const waysThere: ReadonlyArray<string> = [device, "userfaultfd(2)", "userfaultfd(2), user mode"]

const noAddon = (): ReadonlyArray<Finding> => [{
  name: "addon",
  state: "missing",
  detail: Binding.failure(),
  fix: "npm rebuild userfaultfd-napi"
}]

const userfaultfd = (addon: Binding.Addon): Found => {
  const probed = addon.probe()
  const ways = {
    device: probed.device.available,
    syscall: probed.syscall.available,
    userModeOnly: probed.userModeOnly.available
  }
  const features = Object.entries(addon.constants).flatMap(([name, bit]) =>
    name.startsWith("FEATURE_") && (probed.features & bit) !== 0 ? [name.slice("FEATURE_".length)] : []
  )
  const ioctls = rangeIoctls(addon, ways.device || ways.syscall)
  const why = (errno: number) => errno === 0 ? "" : ` (${addon.errnoName(errno)})`
  const findings: Array<Finding> = [
    { name: "addon", state: "ok", detail: "userfaultfd-napi is built and loads" },
    deviceFinding(ways.device, why(probed.device.errno)),
    ways.syscall
      ? { name: "userfaultfd(2)", state: "ok", detail: "all faults, also those of the kernel on the guest's behalf" }
      : {
        name: "userfaultfd(2)",
        state: "missing",
        detail: `not for user ${userInfo().username}${
          why(probed.syscall.errno)
        }: needs the sysctl, CAP_SYS_PTRACE or root`,
        fix: "sudo sysctl -w vm.unprivileged_userfaultfd=1"
      },
    ways.userModeOnly
      ? {
        name: "userfaultfd(2), user mode",
        state: "ok",
        detail: "faults of the guest's own code: all that guests here need"
      }
      : {
        name: "userfaultfd(2), user mode",
        state: "missing",
        detail: `not allowed${
          why(probed.userModeOnly.errno)
        }: needs Linux 5.11 with CONFIG_USERFAULTFD, and no seccomp filter against it`,
        fix: `in a container: docker run --device ${device} …, or --security-opt seccomp=unconfined`
      },
    { name: "vm.unprivileged_userfaultfd", state: "note", detail: read(sysctl) ?? `there is no ${sysctl}` },
    listed("features", features, neededFeatures),
    listed("range ioctls", ioctls, neededIoctls)
  ]
  return { findings, features, ioctls, ways }
}

const deviceFinding = (available: boolean, why: string): Finding => {
  if (available) return { name: device, state: "ok", detail: "opens" }
  const exists = read(`/sys/class/misc/userfaultfd/dev`) !== undefined || isOpenTo(device)
  return {
    name: device,
    state: "missing",
    detail: `cannot be opened${why}${exists ? "" : "; Linux 6.1 and newer have it"}`,
    fix: `sudo setfacl -m u:${userInfo().username}:rw ${device}`
  }
}

/** The kernel tells them only for a range that was registered. */
const rangeIoctls = (addon: Binding.Addon, privileged: boolean): ReadonlyArray<string> => {
  try {
    const { descriptor } = addon.open({ userModeOnly: !privileged })
    const region = addon.Region.anonymous(addon.pageSize)
    const bits = addon.register(descriptor, region.address, region.length, addon.constants.MODE_MISSING)
    addon.unregister(descriptor, region.address, region.length)
    region.close()
    descriptor.close()
    return ioctlNames.filter((_, bit) => (bits & (1 << bit)) !== 0)
  } catch {
    return [] // the ways above say why
  }
}

const listed = (name: string, names: ReadonlyArray<string>, needed: ReadonlyArray<string>): Finding => {
  const lacking = needed.filter((one) => !names.includes(one))
  return lacking.length === 0
    ? { name, state: "ok", detail: names.join(" ") }
    : {
      name,
      state: "missing",
      detail: `without ${lacking.join(" ")}`,
      fix: "boot a newer kernel, Linux 4.14 or later"
    }
}

const hugePages = (): ReadonlyArray<Finding> => {
  const meminfo = read("/proc/meminfo") ?? ""
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(meminfo)?.[1] ?? "0"
  const transparent = /\[(\w+)\]/.exec(read("/sys/kernel/mm/transparent_hugepage/enabled") ?? "")?.[1] ?? "not there"
  return [
    {
      name: "huge pages",
      state: "note",
      detail: `${field("HugePages_Free")} of ${field("HugePages_Total")} free, ${
        field("Hugepagesize")
      } KiB each; transparent: ${transparent}; nothing here needs them`,
      ...(field("HugePages_Total") === "0"
        ? { fix: "if a guest should have some: sudo sysctl -w vm.nr_hugepages=64" }
        : {})
    }
  ]
}
