const OTHER = {source: "target", target: "source"};
const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

// A homogeneous 3x3 matrix, row by row, on a point.
const map = (m, [x, y]) => {
  const w = m[6] * x + m[7] * y + m[8];
  return [(m[0] * x + m[1] * y + m[2]) / w, (m[3] * x + m[4] * y + m[5]) / w];
};
// Its inverse up to scale, which a homogeneous matrix does not show.
const inverse = ([a, b, c, d, e, f, g, h, i]) => [
  e * i - f * h, c * h - b * i, b * f - c * e,
  f * g - d * i, a * i - c * g, c * d - a * f,
  d * h - e * g, b * g - a * h, a * e - b * d];

const expand = (runs, size) => {
  const labels = new Uint8Array(size);
  for (let at = 0, n = 0; n < runs.length; at += runs[n + 1], n += 2)
    labels.fill(runs[n], at, at + runs[n + 1]);
  return labels;
};

for (const article of document.querySelectorAll("article.pair")) {
  const {width, height, objects, masks} = JSON.parse(article.dataset.pair);
  const stage = article.querySelector(".stage"), lines = article.querySelector(".lines");
  const readout = article.querySelector(".readout");
  const views = {}, labels = {};
  const at = {}, stop = {source: 0, target: 0};  // normalised place, and number of the joined point
  for (const side in OTHER) views[side] = article.querySelector(`.view.${side}`);
  for (const item of objects)
    item.map = {source: item.target_from_source, target: inverse(item.target_from_source)};

  // Where a normalised point of a view lies in the stage.
  const place = (view, [x, y]) =>
    [view.offsetLeft + x * view.clientWidth, view.offsetTop + y * view.clientHeight];

  const join = () => drawJoined(lines, objects.flatMap(item => item.points.map(point =>
    [place(views.source, point), place(views.target, map(item.map.source, point))])));

  const mark = (side, [x, y], colour) => {
    const node = views[side].querySelector(".mark");
    const scale = width / views[side].clientWidth;
    node.setAttribute("transform", `translate(${x * width} ${y * height}) scale(${scale})`);
    node.setAttribute("stroke", colour);
    node.setAttribute("visibility", "visible");
  };

  const clear = () => {
    for (const side in views)
      views[side].querySelector(".mark").setAttribute("visibility", "hidden");
    stage.classList.remove("pointed");
    readout.textContent = "";
  };

  // The object at a normalised point of a view, if there is any.
  const objectAt = (side, [x, y]) => {
    const column = Math.floor(x * width), row = Math.floor(y * height);
    labels[side] ??= expand(masks[side], width * height);
    const framed = column >= 0 && column < width && row >= 0 && row < height;
    const label = framed ? labels[side][row * width + column] : 0;
    return objects.find(item => item.label === label);
  };

  const pixels = ([x, y]) => `(${(x * width).toFixed(1)}, ${(y * height).toFixed(1)})`;

  // Show a place of a view, and the same one in the other; where no object is, keys need a mark.
  const show = (side, here, byKey) => {
    const item = objectAt(side, here);
    clear();
    if (byKey || item) at[side] = here;
    if (byKey) mark(side, here, "#fff");
    if (byKey && !item) readout.textContent = `${side} ${pixels(here)} px: no object`;
    if (!item) return;
    const there = map(item.map[side], here);
    stage.classList.add("pointed");
    mark(side, here, item.colour);
    mark(OTHER[side], there, item.colour);
    const name = document.createElement("b");
    name.textContent = item.name;
    readout.replaceChildren(
      name, ` ${side} ${pixels(here)} is ${OTHER[side]} ${pixels(there)} px`);
  };

  const point = (side, event) => {
    const box = views[side].getBoundingClientRect();
    show(side, [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
  };

  // The joined points of a view that its object really shows.
  const stops = side => objects.flatMap(item => item.points
    .map(place => side === "source" ? place : map(item.map.source, place))
    .filter(place => objectAt(side, place) === item));

  // Where keys begin, or go on from.
  const begin = side => at[side] ??= stops(side)[0] ?? [0.5, 0.5];

  const steer = (side, event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = STEPS[event.key], pace = event.shiftKey ? 10 : 1;
    if (step) {
      const moved = (place, by, size) =>
        Math.min(Math.max(Math.floor(place * size) + by * pace, 0), size - 1) + 0.5;
      const [x, y] = begin(side);
      show(side, [moved(x, step[0], width) / width, moved(y, step[1], height) / height], true);
    } else if (event.key === "Enter") {
      const places = stops(side);
      if (!places.length) return;
      stop[side] = (stop[side] + 1) % places.length;
      show(side, places[stop[side]], true);
    } else if (event.key === "Escape") clear();
    else return;
    event.preventDefault();
  };

  for (const side in views) {
    const view = views[side];
    view.addEventListener("pointermove", event => point(side, event));
    view.addEventListener("pointerdown", event => point(side, event));
    view.addEventListener("pointerleave", () =>
      view.matches(":focus-visible") ? show(side, begin(side), true) : clear());
    if (!objects.length) continue;
    view.addEventListener("focus", () => {
      if (view.matches(":focus-visible")) show(side, begin(side), true);
    });
    view.addEventListener("keydown", event => steer(side, event));
    view.addEventListener("blur", clear);
  }
  new ResizeObserver(join).observe(stage);
}

// A switch acts on the pair that it stands in, or on all.
for (const button of document.querySelectorAll(".switch button"))
  button.addEventListener("click", () => {
    const scope = button.closest(".pair") ?? document;
    for (const article of scope === document ? document.querySelectorAll(".pair") : [scope])
      article.dataset.shown = button.value;
    for (const other of scope.querySelectorAll(".switch button"))
      other.setAttribute("aria-pressed", other.value === button.value);
  });
