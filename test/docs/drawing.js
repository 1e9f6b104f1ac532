/** Questions to a drawing that only a browser can answer, which lays it out; evaluated there. Each answers what is wrong. */

const boxOf = (element) => {
  const { height, width, x, y } = element.getBBox()
  return { left: x, top: y, right: x + width, bottom: y + height }
}

const nameOf = (element) => element.textContent || element.getAttribute("points")

const texts = () => [...document.querySelectorAll("text")]

/** Words that reach over the edge of the drawing. */
const cut = () => {
  const { height, width } = document.documentElement.viewBox.baseVal
  return texts().filter((one) => {
    const { bottom, left, right, top } = boxOf(one)
    return left < 0 || top < 0 || right > width || bottom > height
  }).map(nameOf)
}

/** Words that run into other words. */
const overlapping = () =>
  texts().flatMap((one, i) =>
    texts().slice(i + 1).filter((other) => {
      const [a, b] = [boxOf(one), boxOf(other)]
      return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom
    }).map((other) => `${nameOf(one)} / ${nameOf(other)}`)
  )

/** Words in a box that are wider than it. */
const tooWide = () =>
  [...document.querySelectorAll("text.strong, text.noted")].filter((one) => {
    const { left, right } = boxOf(one)
    const around = boxOf(one.previousElementSibling)
    return left < around.left || right > around.right
  }).map(nameOf)

/** Arrows with an end that is not at the edge of a box. */
const astray = () => {
  const boxes = [...document.querySelectorAll("rect.box")].map((one) => one.getBBox())
  const isAtEdge = ({ x, y }) =>
    boxes.some((box) => {
      const [across, down] = [x - box.x, y - box.y]
      const within = across >= 0 && across <= box.width && down >= 0 && down <= box.height
      return within && [across, box.width - across, down, box.height - down].some((distance) => distance < 1)
    })
  return [...document.querySelectorAll("polyline.arrow")].filter(({ points }) =>
    !isAtEdge(points.getItem(0)) || !isAtEdge(points.getItem(points.numberOfItems - 1))
  ).map(nameOf)
}

export const drawing = {
  cut,
  overlapping,
  tooWide,
  astray,
  names: () => [...document.querySelectorAll("text.strong")].map(nameOf),
  counts: () => ({
    words: texts().length,
    arrows: document.querySelectorAll("polyline.arrow").length,
    root: document.documentElement.localName,
    said: [...document.querySelectorAll("title, desc")].map(nameOf)
  })
}
