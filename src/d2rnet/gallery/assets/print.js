// On paper: the listed studies one under the other, each with its pictures, the boxes that are switched on, and its texts.
let themeOnScreen = null;

/** Lay the studies out before the browser does the sheets; again is harmless. */
function layOut() {
  if (document.body.classList.contains('printing')) return;
  const root = document.documentElement;
  themeOnScreen = root.dataset.theme;
  root.dataset.theme = 'light';
  document.body.classList.add('printing');
  const shown = view.record;
  byId('print').replaceChildren(...listed.map(printedStudy));
  view.record = shown;
  for (const pictures of document.querySelectorAll('.printed .pictures')) hideBoxes(pictures);
}

function printedStudy(study) {
  const record = readStudy(study);
  view.record = record; // what draws its parts may look there
  const name = element('div', { className: 'study-name' }, element('h2', { textContent: studyName(study) }), element('p', { className: 'chips' }, ...errorChips(study)));
  const pictures = element('div', { className: record.p.length > 1 ? 'pictures several' : 'pictures' }, ...figuresOf(record));
  for (const image of pictures.querySelectorAll('img')) image.decoding = 'sync';
  const texts = element('div', { className: HAS_BOXES ? 'texts' : 'texts by-structure' }, ...textsOf(record));
  return element('article', { className: 'printed' }, name, pictures, texts);
}

function takeAway() {
  if (!document.body.classList.contains('printing')) return;
  document.body.classList.remove('printing');
  document.documentElement.dataset.theme = themeOnScreen;
  byId('print').replaceChildren();
  drawRows(current);
}

/** Browsers tell of printing by events, their previews and emulations by the medium alone. */
function setUpPrint() {
  window.addEventListener('beforeprint', layOut);
  window.addEventListener('afterprint', takeAway);
  const paper = matchMedia('print');
  paper.addEventListener('change', () => (paper.matches ? layOut() : takeAway()));
}
