#!/bin/sh
":" // ; self=$(readlink -f -- "$0") ; dir=${self%/*} ; node=node
":" // ; case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=none ;; esac
":" // ; while [ -n "$dir" ] ; do dir=${dir%/*}
":" // ;   if [ -x "$dir/node_modules/node-linux-$arch/bin/node" ] ; then node=$dir/node_modules/node-linux-$arch/bin/node ; break ; fi
":" // ; done
":" // ; command -v "$node" > /dev/null || { echo "postcopy: there is no node; install Node.js 22.19 or newer" >&2 ; exit 69 ; }
":" // ; case "$1 $2" in "qemu restore") lean=--max-semi-space-size=1 ; export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-1}" ;; *) lean= ;; esac
":" // ; exec "$node" $lean --disable-warning=ExperimentalWarning "$self" "$@"

// A shell script and a module in one file. The shell sees the lines above as no-ops that end in `exec`: this process
// becomes the Node that was installed with the package (same pid, same descriptors), or the one on PATH. Of restores there
// may be many at once, each of which keeps little: a small young generation is enough, and one arena of malloc. Without the optimizing compilers
// each would take a sixth less, and its guest's pages half as long again. That Node sees
// strings and comments above and starts here. An old Node that was started with this file by hand gives way to the
// installed one in the same manner, through the addon's execve, or through a child process where there is no addon.
import { spawn } from "node:child_process"
import { existsSync, readdirSync, readlinkSync } from "node:fs"
import * as nodeModule from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const here = dirname(fileURLToPath(import.meta.url))

/** The oldest Node that runs TypeScript unbuilt and that Effect's platform package supports. */
const OLDEST = [22, 19]

const recentEnough = () => {
  const [major, minor] = process.versions.node.split(".").map(Number)
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])
}

const installedNode = () => {
  for (let dir = here; dir !== dirname(dir); dir = dirname(dir)) {
    const file = join(dir, "node_modules", `node-linux-${process.arch}`, "bin", "node")
    if (existsSync(file)) return file
  }
  return undefined
}

const isOpenAs = (fd, kind) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith(kind)
  } catch {
    return false
  }
}

/** Open descriptors that the user gave us: 0 to 2, what `fd:N` or `/dev/fd/N` names, and sockets (Node opens none itself). */
const inherited = () => {
  const numbers = new Set([0, 1, 2])
  for (const argument of process.argv.slice(2)) {
    for (const [, fd] of argument.matchAll(/(?:\bfd:|\/dev\/fd\/)(\d{1,9})\b/g)) numbers.add(Number(fd))
  }
  for (const fd of readdirSync("/proc/self/fd")) {
    if (isOpenAs(fd, "socket:")) numbers.add(Number(fd))
  }
  return [...numbers].filter((fd) => isOpenAs(fd, ""))
}

/** Where there is no addon for this Node: a child with the same descriptors at the same numbers. */
const delegateToChild = (node, args, descriptors) => {
  const stdio = Array.from(
    { length: Math.max(...descriptors) + 1 },
    (_, fd) => descriptors.includes(fd) ? fd : "ignore"
  )
  const child = spawn(node, args, { stdio })
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    // Ctrl-C reaches the child by itself, and a second one would mean "now".
    process.on(signal, () => signal === "SIGINT" && process.stdin.isTTY ? undefined : child.kill(signal))
  }
  child.on("exit", (code, signal) => {
    process.removeAllListeners()
    if (signal === null) process.exitCode = code
    else process.kill(process.pid, signal)
  })
}

const replaceProcess = (node) => {
  const args = ["--disable-warning=ExperimentalWarning", fileURLToPath(import.meta.url), ...process.argv.slice(2)]
  const descriptors = inherited()
  try {
    const { execute } = nodeModule.createRequire(import.meta.url)("userfaultfd-napi")
    execute(node, args, { ...process.env }, descriptors)
  } catch {
    delegateToChild(node, args, descriptors)
  }
}

if (recentEnough()) {
  // Experimental to Node 22 is only what Node 24 does as a matter of course; the first lines say the same to a new Node.
  process.removeAllListeners("warning").on("warning", (warning) => {
    if (warning.name !== "ExperimentalWarning") process.stderr.write(`${warning.name}: ${warning.message}\n`)
  })
  // What was compiled, and stripped of its types, once need not be so again: half of the time and memory of a start. Beside
  // the packages, where only their owner writes; where nobody may, there is no cache. A checkout's installation starts every
  // command once (postinstall of package.json), so that its first user does not wait for the compiler either.
  nodeModule.enableCompileCache?.(join(here, "..", "node_modules", ".cache", "postcopy"))
  // Two hundred modules of Effect import each other by relative paths to files that are there, none of them a link. Taken
  // as they stand they load in two thirds of the time in which Node looks up package, kind and real path of each anew.
  nodeModule.registerHooks?.({
    resolve: (specifier, context, next) =>
      specifier.startsWith(".") && context.parentURL?.includes("/node_modules/effect/dist/")
        ? { url: new URL(specifier, context.parentURL).href, format: "module", shortCircuit: true }
        : next(specifier, context)
  })
  const unbuilt = join(here, "..", "src", "cli", "main.ts")
  // Types are not stripped from files below node_modules: an installed package runs what was compiled.
  const installed = here.includes("/node_modules/") || !existsSync(unbuilt)
  // A restore has an entry of its own, which gives way to the other where it does not understand.
  const entry = process.argv[2] === "qemu" && process.argv[3] === "restore" ? "restoring" : "main"
  await import(installed ? `../dist/cli/${entry}.js` : `../src/cli/${entry}.ts`)
} else {
  const node = installedNode()
  if (node === undefined) {
    process.stderr.write(
      `postcopy: Node.js ${process.versions.node} at ${process.execPath} is too old, ${
        OLDEST.join(".")
      } or newer is needed; ` +
        `install it, or reinstall postcopy with its optional dependencies (node-linux-${process.arch})\n`
    )
    process.exitCode = 69
  } else {
    replaceProcess(node)
  }
}
