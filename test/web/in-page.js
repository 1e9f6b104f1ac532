/** Questions to the page that only the page itself can answer; evaluated there. */

/** Pixels of the map, by their colour. */
const colours = () => {
  const canvas = document.querySelector("canvas")
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
  const found = {}
  for (let at = 0; at < data.length; at += 4) {
    const key = `${data[at]},${data[at + 1]},${data[at + 2]}`
    found[key] = (found[key] ?? 0) + 1
  }
  return found
}

/** Texts whose contrast with what is behind them is below 4.5 : 1 (WCAG AA). */
const faint = () => {
  const parse = (color) => (color.match(/[\d.]+/g) ?? []).map(Number)
  const luminance = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((c) => c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)
    return 0.2126 * R + 0.7152 * G + 0.0722 * B
  }
  const groundOf = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor)
      if ((color[3] ?? 1) > 0) return color
    }
    return [255, 255, 255]
  }
  /** What shows through a bar that the text stands on. */
  const blended = (
    [r, g, b],
    [R, G, B],
    share
  ) => [r * share + R * (1 - share), g * share + G * (1 - share), b * share + B * (1 - share)]
  const behind = (one) => {
    const bar = one.closest("svg g")?.querySelector("rect")
    const ground = groundOf(one)
    if (bar === null || bar === undefined) return ground
    const { fill, fillOpacity, opacity } = getComputedStyle(bar)
    return blended(parse(fill), ground, Number(fillOpacity) * Number(opacity))
  }
  const texts = [...document.querySelectorAll("h1, h2, h3, p, dt, dd, small, li, th, td, summary, footer, b, svg text")]
  return texts.filter((one) => one.getClientRects().length > 0 && one.textContent.trim() !== "").flatMap((one) => {
    const { color, fill } = getComputedStyle(one)
    const [text, ground] = [luminance(parse(one.localName === "text" ? fill : color)), luminance(behind(one))]
    const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05)
    return contrast < 4.5 ? [`${one.tagName} ${one.textContent.slice(0, 40)}: ${contrast.toFixed(1)}`] : []
  })
}

export const inPage = { colours, faint, focused: () => document.activeElement?.id }
