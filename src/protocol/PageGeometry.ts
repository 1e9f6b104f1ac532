/**
 * The arithmetic between target pages (T, what travels on the wire) and host pages (H, what the kernel installs) of one
 * block. Both sizes are powers of two and either may be the larger. A last page that the block ends within is a page:
 * it consists of what exists of it, so that a tail shorter than a host page can still become complete.
 */

const isPowerOfTwo = (n: number) => Number.isSafeInteger(n) && n > 0 && Math.log2(n) % 1 === 0

export class PageGeometry {
  /** Bytes of the block. */
  readonly length: number
  /** Bytes of a target page. */
  readonly targetPageSize: number
  /** Bytes of a host page. */
  readonly hostPageSize: number
  readonly targetPages: number
  readonly hostPages: number
  /** H / T, or 1 where target pages are the larger or equal. */
  readonly targetsPerHost: number
  /** T / H, or 1 where host pages are the larger or equal. */
  readonly hostsPerTarget: number

  /** @throws RangeError for sizes that are no powers of two, or a length that is no byte count. */
  constructor(length: number, targetPageSize: number, hostPageSize: number) {
    if (!isPowerOfTwo(targetPageSize)) throw new RangeError(`target page size ${targetPageSize} is no power of two`)
    if (!isPowerOfTwo(hostPageSize)) throw new RangeError(`host page size ${hostPageSize} is no power of two`)
    if (!Number.isSafeInteger(length) || length < 0) throw new RangeError(`block length ${length} is no byte count`)
    this.length = length
    this.targetPageSize = targetPageSize
    this.hostPageSize = hostPageSize
    this.targetPages = Math.ceil(length / targetPageSize)
    this.hostPages = Math.ceil(length / hostPageSize)
    this.targetsPerHost = Math.max(1, hostPageSize / targetPageSize)
    this.hostsPerTarget = Math.max(1, targetPageSize / hostPageSize)
  }

  /** The first target page that overlaps a host page. */
  firstTarget(host: number): number {
    return this.hostsPerTarget === 1 ? host * this.targetsPerHost : Math.floor(host / this.hostsPerTarget)
  }

  /** How many target pages of the block overlap a host page. */
  targetCount(host: number): number {
    return Math.max(0, Math.min(this.targetsPerHost, this.targetPages - this.firstTarget(host)))
  }

  /** The first host page that overlaps a target page. */
  firstHost(target: number): number {
    return this.targetsPerHost === 1 ? target * this.hostsPerTarget : Math.floor(target / this.targetsPerHost)
  }

  /** How many host pages of the block overlap a target page. */
  hostCount(target: number): number {
    return Math.max(0, Math.min(this.hostsPerTarget, this.hostPages - this.firstHost(target)))
  }

  /** Target pages of a host page: `[first, count]`, clipped to the block. */
  hostToTargets(host: number): readonly [first: number, count: number] {
    return [this.firstTarget(host), this.targetCount(host)]
  }

  /** Host pages of a target page: `[first, count]`, clipped to the block. */
  targetToHosts(target: number): readonly [first: number, count: number] {
    return [this.firstHost(target), this.hostCount(target)]
  }
}
