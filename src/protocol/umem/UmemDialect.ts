/** The dialect of 2011 as the source's actors see it: the RAM stream's records out, the request channel in. */
import type { Dialect } from "../Dialect.ts"
import { Command, RamFlag } from "./Constants.ts"
import * as RamStream from "./RamStream.ts"
import * as Request from "./Request.ts"

export const umem: Dialect = {
  name: "umem",
  encoder: (options) => {
    const { eos, fill, page } = RamStream.encoder(options)
    return {
      page,
      fill,
      fills: () => true,
      continuedBytes: RamStream.CONTINUED_HEADER,
      end: eos,
      endBytes: 8,
      headerBytes: RamStream.MAX_RECORD_HEADER
    }
  },
  requests: Request.decoder,
  simple: {
    command: Command.OnDemandCont,
    pageFlags: RamFlag.Page | RamFlag.Continue,
    fillFlags: RamFlag.Compress | RamFlag.Continue
  },
  mayEndEarly: true
}
