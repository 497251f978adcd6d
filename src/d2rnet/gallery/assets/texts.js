// Reports with marked mentions, the table of findings and the scores.
const STATE_NAMES = { present: 'present', uncertain: 'uncertain', absent: 'denied' };
const textName = (place) => (place === 0 ? 'Reference' : shortName(place - 1));
const shortName = (system) => (SYSTEMS > 1 ? `Run ${'AB'[system]}` : 'Generated');

function drawTexts(record) {
  byId('texts').classList.toggle('by-structure', !HAS_BOXES);
  byId('texts').replaceChildren(...textsOf(record));
}

const textsOf = (record) => (HAS_BOXES ? drawWholeTexts(record) : drawStructures(record));

function drawWholeTexts(record) {
  return record.x.map((text, place) => {
    const sentences = text.s.map((span, index) => drawSentence(text, place, span, index));
    if (!sentences.length) sentences.push(element('li', { className: 'empty', textContent: 'empty report' }));
    const heading = element('h3', { textContent: textName(place) });
    return element('article', { className: place ? 'text generated' : 'text reference' }, heading, element('ol', {}, ...sentences));
  });
}

/** A section a structure that is mentioned, the texts side by side in it; then the structures that no text mentions. */
function drawStructures(record) {
  const sections = [];
  const silent = [];
  META.structures.forEach((name, structure) => {
    const columns = record.x.map((text, place) => {
      const own = text.s.map((span, index) => [span, index]).filter(([span]) => span[2].includes(structure));
      return { place, sentences: own.map(([span, index]) => drawSentence(text, place, span, index)) };
    });
    if (!columns.some(({ sentences }) => sentences.length)) {
      silent.push(name);
      return;
    }
    const articles = columns.map(({ place, sentences }) => {
      if (!sentences.length) sentences.push(element('li', { className: 'empty', textContent: 'not mentioned' }));
      const list = element('ol', {}, ...sentences);
      list.setAttribute('aria-label', `${textName(place)}: ${name}`);
      return element('article', { className: place ? 'text generated' : 'text reference' }, element('h4', { textContent: textName(place) }), list);
    });
    sections.push(element('section', { className: 'structure' }, element('h3', { textContent: name }), element('div', { className: 'columns' }, ...articles)));
  });
  if (silent.length) sections.push(element('p', { className: 'silent', textContent: `Mentioned by none: ${silent.join(', ')}.` }));
  return sections;
}

function drawSentence(text, place, [start, end, places, truth, attended], index) {
  const made = element('div', { className: 'sentence', role: 'button', tabIndex: 0 });
  made.dataset.key = `${place}.${index}`;
  made.classList.toggle('has-box', HAS_BOXES && places.length + truth.length > 0);
  let position = start;
  for (const mark of mergedMarks(text.m, start, end)) {
    made.append(text.t.slice(position, mark.start), drawMark(text.t.slice(mark.start, mark.end), mark.mentions, place));
    position = mark.end;
  }
  made.append(text.t.slice(position, end));
  if (HAS_BOXES && place) made.append(...drawBrackets(places, attended));
  return element('li', {}, made);
}

/** Behind a generated sentence: the boxes of what it names in brackets, those that it merely attends to in grey. */
function drawBrackets(places, attended) {
  const named = (boxes) => boxes.map((box) => `${className(view.record.b[box][5])} ${view.record.b[box][6].toFixed(2)}`).join(', ');
  const made = [];
  if (places.length) made.push(' ', element('small', { className: 'linked', textContent: `[${named(places)}]` }));
  if (attended.length) made.push(' ', element('small', { className: 'attended', textContent: `attended: ${named(attended)}` }));
  return made;
}

/** Mentions of a sentence in order; those that overlap become one mark. */
function mergedMarks(mentions, start, end) {
  const marks = [];
  const own = mentions.filter((mention) => mention[0] >= start && mention[1] <= end).sort((a, b) => a[0] - b[0]);
  for (const mention of own) {
    const last = marks[marks.length - 1];
    if (last && mention[0] < last.end) {
      last.end = Math.max(last.end, mention[1]);
      last.mentions.push(mention);
    } else marks.push({ start: mention[0], end: mention[1], mentions: [mention] });
  }
  return marks;
}

/** One word for the verdicts of the mentions in a mark: that of all systems, "differs", or null. */
function verdictOf(mentions) {
  const verdicts = mentions.flatMap((mention) => mention[5]);
  const errors = verdicts.filter((verdict) => verdict && verdict !== 'match');
  const perSystem = mentions.map((mention) => new Set(mention[5]).size);
  if (perSystem.some((count) => count > 1)) return 'differs';
  return errors[0] || verdicts.find(Boolean) || null;
}

function drawMark(words, mentions, place) {
  const verdict = verdictOf(mentions);
  const described = mentions.map((mention) => describe(mention, place)).join('; ');
  const mark = element(verdict ? 'mark' : 'span', { className: verdict || 'mention', title: described });
  mark.style.setProperty('--colour', classColour(mentions[0][2]));
  const spoken = verdict && verdict !== 'match' ? [element('span', { className: 'hidden-text', textContent: ` (${described})` })] : [];
  mark.append(words, ...spoken);
  return mark;
}

function describe([, , category, state, side, verdicts], place) {
  const said = [STATE_NAMES[state], side].filter(Boolean).join(', ');
  const judged = verdicts
    .map((verdict, system) => verdict && (place === 0 && SYSTEMS > 1 ? `${shortName(system)} ${VERDICT_NAMES[verdict]}` : VERDICT_NAMES[verdict]))
    .filter(Boolean);
  return `${className(category)}: ${said}${judged.length ? ` - ${judged.join(', ')}` : ''}`;
}

function table(caption, header, rows) {
  const head = element('tr', {}, ...header.map((name) => element('th', { scope: 'col', textContent: name })));
  const body = rows.map(([first, ...cells]) => element('tr', {}, element('th', { scope: 'row' }, first), ...cells.map((cell) => element('td', {}, cell))));
  return element('table', {}, element('caption', { textContent: caption }), element('thead', {}, head), element('tbody', {}, ...body));
}

/** What texts and boxes say of each class. */
function drawFindings(record) {
  const texts = record.x.map((text) => statesOf(text.m));
  const categories = new Set([...texts.flatMap((states) => [...states.keys()]), ...[...record.b.filter(isShown), ...(record.t || [])].map((box) => box[5])]);
  const rows = [...categories].sort((a, b) => a - b).map((category) => {
    const swatch = element('span', { className: 'swatch' });
    swatch.style.setProperty('--colour', classColour(category));
    const scores = record.b.filter((box) => box[5] === category).map((box) => box[6]);
    const found = scores.length ? `${scores.length}, best ${Math.max(...scores).toFixed(2)}` : '-';
    const truth = (record.t || []).filter((box) => box[5] === category).length;
    const cells = texts.map((states, place) => {
      const chip = place ? chipOf(record, category, place - 1) : '';
      return element('span', { className: 'judged' }, states.get(category) || '-', chip);
    });
    if (record.p.length && HAS_BOXES) cells.push(found, ...(record.t ? [truth ? String(truth) : '-'] : []));
    return [element('span', { className: 'class-name' }, swatch, className(category)), ...cells];
  });
  const header = ['Class', ...record.x.map((_, place) => textName(place))];
  if (record.p.length && HAS_BOXES) header.push('Pseudo boxes', ...(record.t ? ['True boxes'] : []));
  byId('findings').replaceChildren(table('Findings of this study', header, rows));
}

/** A table that is wider than its place can be scrolled by the keyboard, too: only then is it a stop of Tab. */
function reachTables() {
  for (const place of document.querySelectorAll('.tables > div')) {
    const wide = place.scrollWidth > place.clientWidth;
    const name = place.querySelector('caption')?.textContent ?? '';
    for (const [key, value] of [['tabindex', '0'], ['role', 'region'], ['aria-label', name]]) {
      if (wide) place.setAttribute(key, value);
      else place.removeAttribute(key);
    }
  }
}

/** Class -> "present, left" from the mentions of a text. */
function statesOf(mentions) {
  const ranked = ['present', 'uncertain', 'absent'];
  const states = new Map();
  for (const [, , category, state, side] of mentions) {
    const known = states.get(category) || { rank: 2, sides: new Set() };
    known.rank = Math.min(known.rank, ranked.indexOf(state));
    if (side && state !== 'absent') known.sides.add(side);
    states.set(category, known);
  }
  return new Map([...states].map(([category, { rank, sides }]) => [category, [STATE_NAMES[ranked[rank]], ...sides].join(', ')]));
}

function chipOf(record, category, system) {
  const study = INDEX.id.indexOf(record.i);
  const error = ERRORS.find((kind) => INDEX.errors[kind][system][study] & (1 << category));
  if (error) return element('span', { className: `chip ${error}`, textContent: ERROR_NAMES[error] });
  const agrees = record.x[system + 1].m.some((mention) => mention[2] === category && mention[5][0] === 'match');
  return agrees ? element('span', { className: 'chip match', textContent: VERDICT_NAMES.match }) : '';
}

function drawScores(study) {
  const corpus = new Map(META.corpus.map(([key, , values]) => [key, values]));
  const rows = Object.keys(INDEX.scores).map((metric) => {
    const own = META.systems.map((_, system) => scoreOf(metric, system, study));
    const cells = own.map(number);
    if (SYSTEMS > 1) cells.push(own.includes(null) ? '-' : signed(own[0] - own[1]));
    else cells.push(corpus.has(metric) ? number(corpus.get(metric)[0][0]) : '-');
    return [META.names[metric] || metric, ...cells];
  });
  const header = SYSTEMS > 1 ? ['Score', 'Run A', 'Run B', 'A - B'] : ['Score', 'This study', 'All reports'];
  byId('scores').replaceChildren(rows.length ? table('Scores of this study', header, rows) : '');
}

const signed = (value) => `${value >= 0 ? '+' : ''}${value.toFixed(3)}`;

/** Scores of all reports with their intervals. */
function drawCorpus() {
  const rows = META.corpus.map(([, name, values]) => [
    name,
    ...values.map(([value, interval]) => `${number(value)}${interval ? ` [${interval.map(number).join(', ')}]` : ''}`),
  ]);
  const caption = META.protocol.interval ? `Brackets: ${META.protocol.interval}` : '';
  byId('corpus').replaceChildren(table(caption, ['Score', ...META.systems.map((_, system) => shortName(system))], rows));
}
