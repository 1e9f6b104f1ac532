/**
 * Known defects, to be built back in one at a time: what the simulation must see. Each is a change to the source as it is
 * loaded, and fails when the text it changes is gone. `B` numbers are those of the defects of 2011.
 */
import type { Change } from "./Transforms.ts"

export interface Mutant {
  /** What the defect is. */
  readonly about: string
  readonly changes: ReadonlyArray<Change>
}

const mutant = (about: string, ...changes: ReadonlyArray<Change>): Mutant => ({ about, changes })
const change = (file: string, from: string, to: string): Change => ({ file, from, to })

export const mutants: Readonly<Record<string, Mutant>> = {
  B01: mutant(
    "the source takes the end of the connection for no data",
    change(
      "actors/RequestReceiver.ts",
      "        if (n === 0) decoder.finish()\n        else {\n          bytes += n",
      "        if (n === 0) return\n        else {\n          bytes += n"
    )
  ),
  B02: mutant(
    "the end of connection is heard only while pages are being sent",
    change(
      "actors/SourceSender.ts",
      "    advance({ _tag: \"Eoc\" })\n",
      "    if (po === \"ALL_PAGES_SENT\") return yield* Effect.never\n    advance({ _tag: \"Eoc\" })\n"
    )
  ),
  B09: mutant(
    "a block is found by the beginning of its name",
    change(
      "protocol/umem/Names.ts",
      "    if (last.length !== n) return false\n",
      "    if (last.length > n || last.length === 0) return false\n"
    ),
    change(
      "protocol/umem/Names.ts",
      "    for (let i = 0; i < n; i++) if (bytes",
      "    for (let i = 0; i < last.length; i++) if (bytes"
    )
  ),
  B11: mutant(
    "the pages of a request are not held against the block",
    change("protocol/umem/RequestDecoder.ts", "if (page >= this.blockPages) {", "if (page < 0) {")
  ),
  B13: mutant(
    "REMOVE carries page numbers over all blocks",
    change(
      "actors/RequestBacklog.ts",
      "      const some = targets.length <= MAX_ASKED ? targets : targets.slice(at, at + MAX_ASKED)\n",
      "      const some = targets.slice(at, at + MAX_ASKED).map((target) => target + pages.base)\n"
    )
  ),
  B19: mutant(
    "the backlog's size is counted negatively",
    change(
      "actors/RequestBacklog.ts",
      "    return this.#end - this.#at <= PENDING_SIZE_MAX\n",
      "    return (this.#at - this.#end) >>> 0 <= PENDING_SIZE_MAX\n"
    ),
    change("actors/RequestBacklog.ts", "    return this.#at < this.#end\n", "    return this.#at - this.#end > 0\n")
  ),
  B23: mutant(
    "a page that has arrived in part is taken for a page",
    change(
      "protocol/umem/RamReader.ts",
      "          const size = page ? this.targetPageSize : 1\n          if (input.available < this.#at + size) return Read.NeedMore\n",
      "          if (input.available < this.#at + 1) return Read.NeedMore\n" +
        "          const size = Math.min(page ? this.targetPageSize : 1, input.available - this.#at)\n"
    )
  ),
  B24: mutant(
    "what was read ahead of the handover is forgotten",
    change("actors/DaemonPages.ts", "      if (remainder.length > 0) input.push(remainder)\n", "")
  ),
  B27: mutant(
    "a record that is neither page nor fill counts as a page",
    change(
      "protocol/umem/RamReader.ts",
      "    if (kind === 0) return `a record with flags 0x${flags.toString(16)}: it has neither page nor fill byte`\n",
      ""
    ),
    change(
      "protocol/umem/RamReader.ts",
      "          const size = page ? this.targetPageSize : 1\n",
      "          const size = page ? this.targetPageSize : this.#flags & RamFlag.Compress ? 1 : 0\n"
    )
  ),
  B28: mutant(
    "a page's offset is not held against the length of its block",
    change(
      "protocol/umem/RamReader.ts",
      "          if (this.address >= this.#table.length) return this.#malformed(0, this.#beyond())\n",
      ""
    ),
    change("protocol/umem/RamReader.ts", "    if (this.address >= this.#table.length) return this.#beyond()\n", "")
  ),
  B30: mutant(
    "whether a host page is whole is tested from the page that came",
    change(
      "protocol/umem/PageTable.ts",
      "    return this.ready(this.firstHost(target)) ? \"install\" : \"stage\"\n",
      "    const hole = this.#received.nextClear(target)\n" +
        "    return hole < 0 || hole >= target + this.geometry.targetsPerHost ? \"install\" : \"stage\"\n"
    )
  ),
  B33: mutant(
    "a tail shorter than a host page waits for pages that are none",
    change(
      "protocol/PageGeometry.ts",
      "    return Math.max(0, Math.min(this.targetsPerHost, this.targetPages - this.firstTarget(host)))\n",
      "    return this.targetsPerHost\n"
    )
  ),
  B36: mutant(
    "a cancelled migration writes the switchover's byte",
    change(
      "SendGuest.ts",
      "(link) => Effect.sync(() => link.close()), {\n    interruptible: true\n  })",
      "(link) => Effect.sync(() => {\n    if (!outgoing.latched) link.write(Savevm.concat([closing(new Uint8Array(0)), Savevm.eof()]), 0, 99)\n    link.close()\n  }), {\n    interruptible: true\n  })"
    )
  ),
  B41: mutant(
    "a failure after the switchover lets the guest run on",
    change(
      "SendGuest.ts",
      "    return yield* afterLatch(outgoing, switched).pipe(\n",
      "    return yield* afterLatch(outgoing, switched).pipe(\n      Effect.tapError(() => Effect.ignore(guest.vcpu.run)),\n"
    )
  ),
  B47: mutant(
    "the daemon does not see that the guest's process is gone",
    change(
      "actors/UmemDaemon.ts",
      "      case \"ChannelClosed\":\n        pages.stopServing()\n        return apply({ _tag: \"ChannelBroken\" })\n",
      "      case \"ChannelClosed\":\n        return\n"
    )
  ),
  B49: mutant(
    "the daemon fails without a word",
    change("actors/UmemDaemon.ts", "          say(Pipe.error())\n", "          say(new Uint8Array(0))\n"),
    change(
      "actors/DestinationHandler.ts",
      "      case \"ChannelClosed\":\n        return advance(\n          { _tag: \"ChannelEof\" },",
      "      case \"ChannelClosed\":\n        return PisState.isQuitReceived(state) ? Effect.void : advance(\n          { _tag: \"TurnEnd\" },"
    )
  ),
  B53: mutant(
    "of a page that comes twice the second is installed",
    change("protocol/umem/PageTable.ts", "    return !this.#received.test(target)\n", "    return target >= 0\n"),
    change(
      "protocol/umem/PageTable.ts",
      "    if (this.#received.testAndSet(target)) return \"discard\"\n",
      "    this.#received.set(target)\n"
    ),
    change(
      "protocol/umem/PageTable.ts",
      "    return !this.#removed.test(host) && !this.#installed.test(host)\n",
      "    return host >= 0\n"
    )
  ),
  "late-data": mutant(
    "data that comes late is put over a removed page",
    change(
      "protocol/umem/PageTable.ts",
      "    if (this.#received.testAndSet(target)) return\n",
      "    if (this.#received.test(target)) return\n"
    ),
    change(
      "protocol/umem/PageTable.ts",
      "    return !this.#removed.test(host) && !this.#installed.test(host)\n",
      "    return !this.#installed.test(host)\n"
    )
  ),
  "copy-before-remove": mutant(
    "a page that the kernel put off is installed although its REMOVE has been read since",
    change(
      "actors/PageInstaller.ts",
      "      readEvents()\n      if (!pages.table.installable(host)) return\n",
      "      readEvents()\n"
    )
  ),
  "put-off-kept": mutant(
    "a page that was put off is not forgotten when it is removed",
    change(
      "actors/PageInstaller.ts",
      "    for (const host of installDue.keys()) if (table.isRemoved(host) && installDue.delete(host)) this.#putOff--\n",
      ""
    )
  ),
  "eof-is-success-source": mutant(
    "the source takes the end of the connection for the confirmation",
    change(
      "actors/RequestReceiver.ts",
      "        case \"End\":\n",
      "        case \"End\":\n          if (bytes >= 0) return finish({ _tag: \"Eoc\" })\n"
    )
  ),
  "eof-is-success-daemon": mutant(
    "the daemon takes the end of the connection for the end of the stream",
    change(
      "actors/DaemonPages.ts",
      "    if (inputEnded) return\n    inputEnded = true\n",
      "    if (inputEnded) return\n    inputEnded = true\n    eosSeen = true\n    return wake()\n"
    ),
    change(
      "actors/UmemDaemon.ts",
      "      apply({ _tag: \"Eos\", complete: pages.complete() })\n",
      "      apply({ _tag: \"Eos\", complete: true })\n"
    )
  ),
  "uffd-closed-early": mutant(
    "the userfaultfd is closed with pages missing",
    change(
      "ReceiveGuest.ts",
      "loaded.registration.release(Exit.isSuccess(exit) || daemon.counters.complete())",
      "loaded.registration.release(true)"
    )
  ),
  "lost-wakeup-duplicate": mutant(
    "the second fault on a removed page is dropped as a duplicate",
    change(
      "actors/FaultIntake.ts",
      "    if (answer === \"removed\") {\n",
      "    if (answer === \"removed\" && pages.assembly.has(-1 - host)) return\n" +
        "    if (answer === \"removed\") {\n      pages.assembly.set(-1 - host, new Uint8Array(0))\n"
    )
  ),
  "lost-wakeup-removal": mutant(
    "a thread that waits for a page when it is removed is never answered",
    change(
      "actors/DaemonPages.ts",
      "    for (let i = 0; i < table.waiters.length; i++) installer.zero(pages, table.waiters[i]!)\n",
      ""
    )
  ),
  "no-retry": mutant(
    "what the kernel put off is not tried again",
    change("actors/UmemDaemon.ts", "        pages.retry()\n", "")
  ),
  "restore-race": mutant(
    "a guest whose device state is on its way counts as stopped",
    change("LoadState.ts", "() => !guest.mayRun", "() => guest.state === \"incoming\"")
  ),
  "arrived-is-installed": mutant(
    "a page that has arrived counts as installed",
    change(
      "ReceiveGuest.ts",
      "loaded.registration.release(Exit.isSuccess(exit) || daemon.counters.complete())",
      "loaded.registration.release(Exit.isSuccess(exit) || daemon.counters.missing() === 0)"
    )
  ),
  "touch-inline": mutant(
    "whoever hears of the daemon's end is the one who waits for its pages",
    change(
      "actors/DestinationHandler.ts",
      "            triggered.push({ pages, tell: false })\n",
      "            yield* prefault(pages)\n"
    ),
    change(
      "actors/DestinationHandler.ts",
      "            triggered[triggered.length - 1]!.tell = true\n",
      "            yield* channel.send(Pipe.pageFaulted(pages))\n"
    )
  ),
  "starved-noted": mutant(
    "faults noted above the mark are never forwarded",
    change("actors/RequestBacklog.ts", "      if (this.#noted > 0 && this.open) this.#forwardNoted()\n", "")
  ),
  "noted-is-asked": mutant(
    "a fault that was only noted counts as asked for",
    change("actors/FaultIntake.ts", "      pages.table.unrequest()\n", "")
  ),
  "turn-ends": mutant(
    "a turn that wrote all that was encoded is the last one",
    change("actors/SourceSender.ts", "        watch(turn <= 0)\n", "        watch(false)\n")
  ),
  "quick-rest": mutant(
    "the rest of a request that the link took the beginning of waits for the next one",
    change("actors/QuickPages.ts", "      onUnsent()\n", "")
  ),
  "quick-unlogged": mutant(
    "the quick way's last entry is not carried out",
    change(
      "actors/QuickPages.ts",
      "const end = Fetch.words + count * LOG_WORDS",
      "const end = Fetch.words + (count - 1) * LOG_WORDS"
    )
  ),
  "quick-twice": mutant(
    "a page that was answered the quick way stays dirty",
    change(
      "actors/SourceSender.ts",
      "        pages.sent(state, page)\n        onDemand++\n",
      "        onDemand++\n"
    )
  ),
  "quick-pushed": mutant(
    "pages that were pushed the quick way stay dirty",
    change("actors/SourceSender.ts", "          pages.sentRun(state, page, pushed)\n", "")
  ),
  "quick-rewind": mutant(
    "a record that the ordinary way has begun is ended the quick way, and again",
    change("actors/QuickPages.ts", "    reader.rewind()\n", "")
  ),
  "staged-kept": mutant(
    "what was staged for a page that is then removed stays in the memfd",
    change(
      "actors/PageInstaller.ts",
      "      if (!table.isInstalled(host)) this.#options.uffd.staged(idstr).clear(host * hostPageSize, hostPageSize)\n",
      ""
    )
  ),
  "staged-removed": mutant(
    "what comes for a removed page of a memfd is written to it",
    change("actors/PageArrivals.ts", "        if (!table.isRemoved(page)) installer.stage", "        installer.stage")
  )
}
