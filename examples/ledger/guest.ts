/**
 * A guest of one's own: a ledger of accounts in a block of plain memory, balances as 64-bit integers. What must move with
 * it and is not in the block, the number of transfers, is its device state.
 *
 *   postcopy run ./examples/ledger/guest.ts --control /tmp/ledger.sock
 *   postcopy call --control /tmp/ledger.sock '{"from": 3, "to": 9, "amount": 250}'
 */
import { Guest } from "postcopy"

const accounts = 2 ** 20
const bytes = accounts * 8

export default Guest.memory({
  blocks: [{ idstr: "ledger", length: bytes }],
  start: (ctx) => {
    new BigInt64Array(ctx.memory.ledger.buffer, ctx.memory.ledger.byteOffset, accounts).fill(1000n)
    ctx.state = { transfers: 0 }
  },
  call: (ctx, request) => {
    // A view over the block: reading an account whose page has not arrived waits for that page, and for nothing else.
    const balances = new BigInt64Array(ctx.memory.ledger.buffer, ctx.memory.ledger.byteOffset, accounts)
    const { account, amount, from, to } = request ?? {}
    if (Number.isInteger(account)) return { account, balance: Number(balances[account]) }
    if (request?.total === true) {
      let total = 0n
      for (const balance of balances) total += balance
      return { total: Number(total), transfers: ctx.state.transfers }
    }
    if (![from, to].every((n) => Number.isInteger(n) && n >= 0 && n < accounts) || !Number.isInteger(amount)) {
      throw new TypeError("the ledger knows {account}, {total: true} and {from, to, amount}")
    }
    balances[from]! -= BigInt(amount)
    balances[to]! += BigInt(amount)
    ctx.state.transfers++
    return { from: Number(balances[from]), to: Number(balances[to]) }
  },
  save: (ctx) => new TextEncoder().encode(JSON.stringify(ctx.state)),
  restore: (ctx, state) => {
    ctx.state = JSON.parse(new TextDecoder().decode(state))
  }
})
