for (const group of document.querySelectorAll(".group")) {
  const links = JSON.parse(group.dataset.links), lines = group.querySelector(".lines");
  const stage = group.querySelector(".stage"), views = new Map();
  for (const view of group.querySelectorAll(".view")) views.set(+view.dataset.image, view);
  let chosen = views.keys().next().value;

  // Where a normalised point of a picture lies in the stage.
  const place = (image, [x, y]) => {
    const shown = views.get(image).querySelector(".shown").getBoundingClientRect();
    const box = stage.getBoundingClientRect();
    return [shown.left - box.left + x * shown.width, shown.top - box.top + y * shown.height];
  };

  const join = () => {
    for (const [image, view] of views) view.classList.toggle("chosen", image === chosen);
    const own = links.filter(link => link.images.includes(chosen));
    drawJoined(lines, own.flatMap(({images, points}) => points.map(([x, y, u, v]) =>
      [place(images[0], [x, y]), place(images[1], [u, v])])));
  };

  for (const [image, view] of views)
    for (const event of ["pointerenter", "pointerdown", "focus"])
      view.addEventListener(event, () => { chosen = image; join(); });
  new ResizeObserver(join).observe(stage);
}
