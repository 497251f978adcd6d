// Pictures of a study, radiographs with their boxes, the legend, and what is lit.
const view = { record: null, pinned: null, leastAtStart: 0 };

function drawPictures(record) {
  byId('pictures').replaceChildren(...figuresOf(record));
  byId('pictures').classList.toggle('several', record.p.length > 1);
}

/** One figure per image; boxes are placed in per cent of the original size. */
function figuresOf(record) {
  const figures = record.p.map(([uri, width, height, problem, name], place) => {
    const frame = element('div', { className: 'frame' });
    frame.style.setProperty('--ratio', width / height);
    if (uri) frame.append(element('img', { src: uri, alt: `${name} of study ${record.s}`, decoding: 'async' }));
    else frame.append(element('p', { className: 'no-image', textContent: problem }));
    frame.append(...boxesOn(record, place, width, height));
    const caption = record.p.length > 1 ? [element('figcaption', { textContent: name })] : [];
    return element('figure', {}, frame, ...caption);
  });
  if (!figures.length) figures.push(element('p', { className: 'no-image', textContent: 'Texts only: images were not given.' }));
  return figures;
}

/** Boxes of one image, the largest first, so that small ones lie on top. */
function boxesOn(record, image, width, height) {
  const pseudo = record.b.map((box, index) => ({ kind: 'pseudo', index, box, score: box[6] }));
  const truth = (record.t || []).map((box, index) => ({ kind: 'true', index, box, score: null }));
  return [...pseudo, ...truth]
    .filter(({ box }) => box[0] === image)
    .sort((a, b) => b.box[3] * b.box[4] - a.box[3] * a.box[4])
    .map((item) => drawBox(item, width, height));
}

function drawBox({ kind, index, box, score }, width, height) {
  const [, left, top, across, down, category] = box;
  const text = kind === 'true' ? className(category) : `${className(category)} ${score.toFixed(2)}`;
  const made = element('div', { className: `box ${kind}`, role: 'button', tabIndex: 0 });
  made.setAttribute('aria-label', kind === 'true' ? `true box: ${text}` : `pseudo box and its score: ${text}`);
  Object.assign(made.style, {
    left: `${(100 * left) / width}%`,
    top: `${(100 * top) / height}%`,
    width: `${(100 * across) / width}%`,
    height: `${(100 * down) / height}%`,
  });
  made.style.setProperty('--colour', classColour(category));
  made.classList.toggle('far-right', left + across / 2 > width / 2);
  made.classList.toggle('near-top', top < height * 0.06);
  made.classList.toggle('near-bottom', top + down > height * 0.94);
  Object.assign(made.dataset, { kind, index, category, score: score ?? '', shown: box[7] ?? 1 });
  made.append(element('span', { className: 'box-label', textContent: text }));
  return made;
}

function drawLegend(record) {
  const categories = new Set([...record.b.filter(isShown), ...(record.t || [])].map((box) => box[5]));
  const items = [...categories].sort((a, b) => a - b).map((category) => {
    const made = element('button', { type: 'button', className: 'legend-item' });
    const swatch = element('span', { className: 'swatch' });
    swatch.style.setProperty('--colour', classColour(category));
    made.append(swatch, className(category));
    made.dataset.category = category;
    return element('li', {}, made);
  });
  byId('legend').replaceChildren(...items);
}

/** Show and hide boxes by kind and score; say how many are left. */
function filterBoxes() {
  byId('score-value').textContent = Number(byId('score').value).toFixed(2);
  sayBoxes(hideBoxes(byId('pictures')));
}

/** Hide the boxes below a node that are switched off or below the least score; return how many of each kind are left. */
function hideBoxes(root) {
  const least = Number(byId('score').value);
  const shown = { pseudo: 0, true: 0 };
  for (const box of root.querySelectorAll('.box')) {
    const { kind } = box.dataset;
    box.hidden = !byId(kind).checked || (kind === 'pseudo' && !isAsked(box.dataset, least));
    shown[kind] += !box.hidden;
  }
  spreadLabels(root);
  return shown;
}

/** Whether a pseudo box is to be seen: at the start as it was decided, and a weaker one that is spoken of until the least score is raised. */
function isAsked({ shown, score }, least) {
  if (least === view.leastAtStart) return shown === '1';
  return Number(score) >= least || (shown === '1' && least < view.leastAtStart);
}

/** Shift labels that would lie on one another up or down, as far as their picture and a few lines allow. */
function spreadLabels(root) {
  const placed = [];
  for (const label of root.querySelectorAll('.box:not([hidden]) .box-label')) {
    label.style.transform = '';
    const { left, right, top, bottom, height } = label.getBoundingClientRect();
    const frame = label.closest('.frame').getBoundingClientRect();
    const apart = (other, shift) => right <= other.left || other.right <= left || bottom + shift <= other.top || other.bottom <= top + shift;
    const free = (shift) => top + shift >= frame.top && bottom + shift <= frame.bottom && placed.every((other) => apart(other, shift));
    const shift = [0, -1, 1, -2, 2, -3, 3].map((lines) => lines * height).find(free) ?? 0;
    if (shift) label.style.transform = `translateY(${shift}px)`;
    placed.push({ left, right, top: top + shift, bottom: bottom + shift });
  }
}

function sayBoxes(shown) {
  const { record } = view;
  if (!record || !record.p.length || !HAS_BOXES) {
    byId('box-count').textContent = '';
    return;
  }
  const truth = record.t ? `${shown.true} of ${record.t.length} true boxes` : 'true boxes not known';
  byId('box-count').textContent = `${shown.pseudo} of ${record.b.length} pseudo boxes, ${truth} shown.`;
}

const boxKey = (kind, index) => `${kind}-${index}`;

/** Boxes and sentences that belong to a sentence, box or class, and boxes that a sentence merely attends to. */
function linked(item) {
  const boxes = new Set();
  const attended = new Set();
  const sentences = new Set();
  if (item.what === 'class') {
    view.record.b.forEach((box, index) => box[5] === item.category && boxes.add(boxKey('pseudo', index)));
    (view.record.t || []).forEach((box, index) => box[5] === item.category && boxes.add(boxKey('true', index)));
    return { boxes, attended, sentences };
  }
  view.record.x.forEach((text, place) => {
    text.s.forEach(([, , places, truth, others], index) => {
      const pseudo = HAS_BOXES ? places : [];
      const own = [...pseudo.map((box) => boxKey('pseudo', box)), ...truth.map((box) => boxKey('true', box))];
      if (item.what === 'sentence' && item.key === `${place}.${index}`) {
        own.forEach((key) => boxes.add(key));
        others.forEach((box) => attended.add(boxKey('pseudo', box)));
        sentences.add(item.key);
      } else if (item.what === 'box' && own.includes(item.key)) sentences.add(`${place}.${index}`);
    });
  });
  if (item.what === 'box') boxes.add(item.key);
  return { boxes, attended, sentences };
}

/** Light up an item and what belongs to it; null lights nothing. */
function light(item) {
  const { boxes, attended, sentences } = item ? linked(item) : { boxes: new Set(), attended: new Set(), sentences: new Set() };
  let hidden = 0;
  for (const box of document.querySelectorAll('.box')) {
    const key = boxKey(box.dataset.kind, box.dataset.index);
    const lit = boxes.has(key);
    box.classList.toggle('lit', lit);
    box.classList.toggle('attended', attended.has(key));
    box.classList.toggle('dim', Boolean(item) && !lit && !attended.has(key));
    hidden += lit && box.hidden;
  }
  for (const sentence of document.querySelectorAll('.sentence')) sentence.classList.toggle('lit', sentences.has(sentence.dataset.key));
  for (const [selector, what] of [['.box', 'box'], ['.sentence', 'sentence'], ['.legend-item', 'class']]) {
    for (const node of document.querySelectorAll(selector)) node.setAttribute('aria-pressed', String(isPinned(node, what)));
  }
  filterBoxes();
  if (item && item.what === 'sentence' && view.record.p.length && HAS_BOXES) {
    const note = boxes.size ? `This sentence has ${boxes.size} ${boxes.size === 1 ? 'box' : 'boxes'}, ${hidden} hidden.` : 'This sentence has no box.';
    const grey = attended.size ? ` Grey: ${attended.size} more attended, not proof.` : '';
    byId('box-count').textContent = note + grey;
  }
}

/** The item that a node stands for, null for none. */
function itemOf(node) {
  const target = node.closest && node.closest('.box, .sentence, .legend-item');
  if (!target) return null;
  if (target.matches('.box')) return { what: 'box', key: boxKey(target.dataset.kind, target.dataset.index) };
  if (target.matches('.sentence')) return { what: 'sentence', key: target.dataset.key };
  return { what: 'class', category: Number(target.dataset.category) };
}

const sameItem = (a, b) => Boolean(a && b) && a.what === b.what && a.key === b.key && a.category === b.category;
const isPinned = (node) => sameItem(itemOf(node), view.pinned);

function pin(item) {
  view.pinned = sameItem(item, view.pinned) ? null : item;
  light(view.pinned);
}

/** Wire pointing, focus and clicks. */
function setUpBoxes() {
  const body = byId('body');
  const hover = (event) => view.pinned || light(itemOf(event.target));
  const leave = () => view.pinned || light(null);
  body.addEventListener('pointerover', (event) => event.pointerType !== 'touch' && hover(event));
  body.addEventListener('pointerleave', leave);
  body.addEventListener('focusin', (event) => event.target.matches(':focus-visible') && hover(event));
  body.addEventListener('focusout', leave);
  body.addEventListener('click', (event) => {
    const item = itemOf(event.target);
    if (item) pin(item);
  });
  body.addEventListener('keydown', (event) => {
    const pressed = event.key === 'Enter' || event.key === ' ';
    if (!pressed || !event.target.matches('.box, .sentence')) return;
    event.preventDefault();
    pin(itemOf(event.target));
  });
  byId('score').value = META.shown_score;
  view.leastAtStart = Number(byId('score').value);
  for (const id of ['pseudo', 'true', 'score']) byId(id).addEventListener('input', filterBoxes);
  new ResizeObserver(() => spreadLabels(byId('pictures'))).observe(byId('pictures'));
}
