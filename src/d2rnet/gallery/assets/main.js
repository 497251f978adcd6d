// The page: which study is shown, the keyboard, light and dark.
let current = null;
const ALL = INDEX.id.map((_, study) => study);

/** What the scores on the page hold for. */
function describeRun() {
  const { protocol, counts } = META;
  const shown = ['section', 'text', 'split'].filter((key) => protocol[key]).map((key) => `${key === 'text' ? 'text protocol' : key} ${protocol[key]}`);
  const n = protocol.n ? [`n ${grouped(protocol.n)}`] : [];
  const runs = META.mode === 'compare' ? META.systems : [];
  byId('protocol').textContent = [...shown, ...n, ...runs].join(' \u00b7 ');
  const lines = [];
  if (counts.left_out_by_number) lines.push(`${grouped(counts.left_out_by_number)} of ${grouped(counts.reports)} reports are left out; shown are ${META.how}.`);
  if (counts.left_out_by_size) lines.push(`${grouped(counts.left_out_by_size)} reports are left out for the size of this gallery.`);
  if (counts.images_not_shown) lines.push(`${grouped(counts.images_not_shown)} ${named(counts.images_not_shown, META.images)} cannot be shown.`);
  if (META.missing) lines.push(`${grouped(META.missing)} entries of the split have no generated report.`);
  byId('left-out').textContent = lines.join(' ');
  byId('wrong-side-legend').hidden = !ERRORS.includes('wrong_side');
  byId('true-label').hidden = !counts.true_boxes_known;
  byId('differs-legend').hidden = SYSTEMS < 2;
}

/** Show a study; its pictures follow when they are decoded. */
function show(study) {
  current = study;
  history.replaceState(null, '', `#${encodeURIComponent(INDEX.id[study])}`);
  document.body.classList.remove('drawer-open');
  byId('drawer').setAttribute('aria-expanded', 'false');
  byId('name').textContent = studyName(study);
  byId('name').title = INDEX.id[study];
  byId('chips').replaceChildren(...errorChips(study));
  scrollToStudy(study);
  drawRows(current);
  sayPlace();
  draw(study);
}

function draw(study) {
  const record = readStudy(study);
  Object.assign(view, { record, pinned: null });
  say('');
  drawPictures(record);
  drawLegend(record);
  drawTexts(record);
  drawFindings(record);
  drawScores(study);
  reachTables();
  light(null);
}

/** Show a message in place of the study; "" shows the study. */
function say(text) {
  byId('message').textContent = text;
  byId('message').hidden = !text;
  byId('body').hidden = Boolean(text);
}

function sayPlace() {
  const place = listed.indexOf(current);
  byId('place').textContent = place < 0 ? '' : `${grouped(place + 1)} of ${grouped(listed.length)}`;
  byId('previous').disabled = place <= 0;
  byId('next').disabled = place < 0 || place === listed.length - 1;
}

/** Images and studies of some entries: an image may be an entry, and a study have several; texts alone are counted as reports. */
function sizesOf(entries) {
  const images = entries.reduce((sum, study) => sum + INDEX.images[study], 0);
  return { images: images || entries.length, studies: new Set(entries.map((study) => INDEX.study[study] || INDEX.id[study])).size };
}

/** "175 radiographs of 159 studies"; of fewer, how many of how many. */
function sayCount() {
  const all = sizesOf(ALL);
  const what = INDEX.images.some(Boolean) ? META.images : 'reports';
  if (listed.length === COUNT) {
    byId('count').textContent = `${grouped(all.images)} ${named(all.images, what)} of ${grouped(all.studies)} ${named(all.studies, 'studies')}`;
    return;
  }
  const { images, studies } = listed.length ? sizesOf(listed) : { images: 0, studies: 0 };
  const part = (count, of, plural) => `${grouped(count)} of ${grouped(of)} ${named(of, plural)}`;
  byId('count').textContent = `${part(images, all.images, what)}, ${part(studies, all.studies, 'studies')}`;
}

/** Redo the list after a change of filters or order. */
function relist() {
  listed = listedStudies();
  sayCount();
  byId('list').scrollTop = 0;
  if (!listed.length) {
    current = null;
    drawRows(null);
    sayPlace();
    byId('name').textContent = 'No study';
    byId('chips').replaceChildren();
    say('No study fits the filters.');
  } else show(listed.includes(current) ? current : listed[0]);
}

function step(by) {
  const place = listed.indexOf(current) + by;
  if (current !== null && place >= 0 && place < listed.length) show(listed[place]);
}

function jump(place) {
  if (listed.length) show(listed.at(place));
}

function moveSlider(by) {
  const slider = byId('score');
  slider.value = Number(slider.value) + by;
  filterBoxes();
}

function toggle(id) {
  if (byId(`${id}-label`)?.hidden) return;
  byId(id).checked = !byId(id).checked;
  filterBoxes();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  g: () => jump(0),
  G: () => jump(-1),
  '/': () => {
    document.body.classList.add('drawer-open');
    byId('find').focus();
  },
  b: () => toggle('pseudo'),
  t: () => toggle('true'),
  '[': () => moveSlider(-0.05),
  ']': () => moveSlider(0.05),
  d: () => byId('theme').click(),
  '?': () => byId('help').showModal(),
  Escape: () => {
    view.pinned = null;
    light(null);
    document.body.classList.remove('drawer-open');
  },
};
const LIST_KEYS = { ArrowDown: () => step(1), ArrowUp: () => step(-1), Home: () => jump(0), End: () => jump(-1) };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
  const typing = event.target.matches('input:not([type=checkbox]), select');
  if (typing && event.key !== 'Escape') return;
  const action = (event.target === byId('list') && LIST_KEYS[event.key]) || KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  if (typing) event.target.blur();
  action();
}

/** Begin with the system's choice; a press of the button is remembered where the browser allows it. */
function setUpTheme() {
  const root = document.documentElement;
  const remembered = () => {
    try {
      return localStorage.getItem('d2rnet-theme');
    } catch {
      return null;
    }
  };
  root.dataset.theme = remembered() || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  byId('theme').onclick = () => {
    root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
    try {
      localStorage.setItem('d2rnet-theme', root.dataset.theme);
    } catch {
      // A browser that keeps nothing starts with the system's choice again.
    }
  };
}

/** The study that the address names after '#', null for none. */
function studyOfAddress() {
  const place = INDEX.id.findIndex((id) => `#${encodeURIComponent(id)}` === location.hash);
  return place < 0 ? null : place;
}

for (const id of ['layout', 'top-buttons']) byId(id).hidden = false; // a plain list without this script
setUpTheme();
describeRun();
drawCorpus();
setUpFilters(relist);
setUpList(show, () => current);
setUpBoxes();
new ResizeObserver(reachTables).observe(byId('study'));
setUpPrint();
byId('previous').onclick = () => step(-1);
byId('next').onclick = () => step(1);
byId('help-open').onclick = () => byId('help').showModal();
byId('drawer').onclick = () => {
  const open = document.body.classList.toggle('drawer-open');
  byId('drawer').setAttribute('aria-expanded', String(open));
};
document.addEventListener('keydown', onKey);
window.addEventListener('hashchange', () => {
  const study = studyOfAddress();
  if (study !== null && study !== current) show(study);
});
current = studyOfAddress();
relist();
