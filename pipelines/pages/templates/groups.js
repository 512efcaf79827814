for (const group of document.querySelectorAll(".group")) {
  const links = JSON.parse(group.dataset.links), lines = group.querySelector(".lines");
  const stage = group.querySelector(".stage"), views = new Map();
  const readout = group.querySelector(".readout");
  for (const view of group.querySelectorAll(".view")) views.set(+view.dataset.image, view);
  const name = image => {
    const node = document.createElement("bdi");
    node.textContent = views.get(image).querySelector(".name").textContent;
    return node;
  };
  let chosen;

  // Where a normalised point of a picture lies in the stage.
  const place = (image, [x, y]) => {
    const shown = views.get(image).querySelector(".shown").getBoundingClientRect();
    const box = stage.getBoundingClientRect();
    return [shown.left - box.left + x * shown.width, shown.top - box.top + y * shown.height];
  };

  const join = () =>
    drawJoined(lines, links.filter(link => link.images.includes(chosen)).flatMap(
      ({images, points}) => points.map(([x, y, u, v]) =>
        [place(images[0], [x, y]), place(images[1], [u, v])])));

  // The picture whose points are shown, and in words in which others they lie.
  const choose = image => {
    if (image === chosen) return;
    chosen = image;
    for (const [other, view] of views) {
      view.classList.toggle("chosen", other === chosen);
      view.querySelector(".shown").setAttribute("aria-pressed", other === chosen);
    }
    const shared = links.filter(link => link.images.includes(chosen)).flatMap(
      ({images, points}, number) => [
        `${number ? ", " : " shares "}${points.length} point${points.length === 1 ? "" : "s"} with `,
        name(images.find(other => other !== chosen))]);
    readout.replaceChildren(name(chosen), ...(shared.length ? shared : [" shares no points"]));
    join();
  };

  for (const [image, view] of views)
    for (const event of ["pointerenter", "pointerdown", "focusin"])
      view.addEventListener(event, () => choose(image));
  choose(views.keys().next().value);
  new ResizeObserver(join).observe(stage);
}
