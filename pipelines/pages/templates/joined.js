// A node of SVG, inside another one.
const draw = (parent, name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
};

// Pairs of points of the stage, each joined in a colour of its own, in place of what was drawn.
const drawJoined = (lines, pairs) => {
  lines.replaceChildren();
  pairs.forEach(([[a, b], [c, d]], number) => {
    const colour = `hsl(${Math.round(360 * number / pairs.length)} 95% 62%)`;
    draw(lines, "line", {x1: a, y1: b, x2: c, y2: d, stroke: colour});
    draw(lines, "circle", {cx: a, cy: b, r: 3.6, fill: colour});
    draw(lines, "circle", {cx: c, cy: d, r: 3.6, fill: colour});
  });
};

// What the bar's boxes say is hidden.
for (const box of document.querySelectorAll(".bar input"))
  box.addEventListener("change", () =>
    document.body.classList.toggle("no-" + box.value, !box.checked));
