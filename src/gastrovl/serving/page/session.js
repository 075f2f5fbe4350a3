// Wishes and answers to exchanges, dialogues, and a record that `gastrovl rate import-session` reads.

const SCHEMA = "gastrovl/session/1";
const BINS = 999;

// A box as models are told of it: [x0,y0,x1,y1] in 0-999, never thinner than a bin.
export function encodeBox(box) {
  const [x0, x1] = onGrid(box.x0, box.x1);
  const [y0, y1] = onGrid(box.y0, box.y1);
  return `[${[x0, y0, x1, y1].map((bin) => String(bin).padStart(3, "0")).join(",")}]`;
}

function onGrid(low, high) {
  const first = Math.floor(low * BINS + 0.5);
  const second = Math.floor(high * BINS + 0.5);
  if (first < second) return [first, second];
  const isBelow = ((low + high) / 2) * BINS < first || first === BINS;
  return isBelow ? [first - 1, first] : [first, first + 1];
}

// The terms by id and by wording, and the question that a wish is put in.
export class Vocabulary {
  constructor({ terms, wordings }) {
    this.terms = terms;
    this.wordings = wordings;
    this.byId = new Map(terms.map((term) => [term.id, term]));
    this.byWords = new Map();
    for (const term of terms) {
      for (const words of [...term.synonyms, term.name]) this.byWords.set(normalise(words), term);
    }
  }

  nameOf(id) {
    return this.byId.get(id)?.name ?? id;
  }

  asked(wish) {
    if (wish.kind === "say") return wish.words;
    const term = this.byId.get(wish.words) ?? this.byWords.get(normalise(wish.words));
    const wording = this.wordings[wish.kind];
    if (wish.kind === "name") return wording.replace("{box}", encodeBox(wish.box));
    return wording.replace("{label}", () => term?.name ?? wish.words.trim());
  }
}

function normalise(words) {
  const plain = words.normalize("NFKC").toLowerCase().replace(/['’‘`´]/g, "").trim().replace(/\.$/, "");
  return plain.replace(/[\s_\u2010-\u2015-]+/g, " ").trim();
}

export const corners = ([x0, y0, x1, y1]) => ({ x0, y0, x1, y1 });

// What one model was asked and said; a dialogue goes on for each image until it is forgotten.
export class Session {
  constructor(model) {
    this.model = model;
    this.exchanges = [];
    this.dialogues = new Map();
  }

  turns(picture) {
    return this.dialogues.get(picture.id) ?? [];
  }

  forget(picture) {
    this.dialogues.delete(picture.id);
  }

  // The messages of a free question in OpenAI's form; the image stands before the first words.
  messages(picture, words) {
    const said = [...this.turns(picture), ["user", words]];
    const shown = { type: "image_url", image_url: { url: picture.dataUrl } };
    return said.map(([role, text], place) => ({
      role,
      content: place === 0 ? [shown, { type: "text", text }] : text,
    }));
  }

  keep(picture, wish, asked, answer, seconds) {
    const exchange = {
      number: this.exchanges.length + 1,
      image: {
        name: picture.name,
        sha256: picture.sha256,
        width_px: picture.width_px,
        height_px: picture.height_px,
      },
      kind: wish.kind,
      asked,
      words: wish.words ?? "",
      ...(wish.box ? { region: wish.box } : {}),
      ...content(wish.kind, answer),
      calibrated: answer.calibrated,
      ...believed(answer),
      seconds,
    };
    this.exchanges.push(exchange);
    if (wish.kind === "say") {
      this.dialogues.set(picture.id, [...this.turns(picture), ["user", asked], ["assistant", answer.text]]);
    }
    return exchange;
  }

  record(notice) {
    return { schema: SCHEMA, model: this.model, notice, exchanges: this.exchanges };
  }
}

function content(kind, answer) {
  const found = { text: answer.text, confidence: answer.confidence ?? null };
  if (kind === "classify" || kind === "name") {
    found.terms = answer.labels.map((label) => label.id);
    found.probabilities = answer.probabilities ?? {};
  }
  if (kind === "locate") {
    const expected = answer.boxes.map((box) => box.expected_iou);
    found.boxes = answer.boxes.map((box) => corners(box.fractions));
    if (!expected.some((share) => share === null || share === undefined)) found.expected_iou = expected;
    if (answer.presence !== null) found.presence = answer.presence;
  }
  if (answer.stop_reason) found.stop_reason = answer.stop_reason;
  return found;
}

// What the server says may be believed of an answer, and of its picture, in the words of a session.
function believed({ belief, scope }) {
  if (!belief && !scope) return {};
  const found = scope ? { scope: { verdict: scope.verdict, reason: scope.reason } } : {};
  if (belief) {
    Object.assign(found, {
      is_calibrated: true,
      label_set: belief.label_set?.map((label) => label.id) ?? null,
      level: belief.level,
      is_withheld: belief.withheld,
      fallback: belief.fallback.map(({ id, probability }) => ({ term: id, probability })),
      risk: belief.risk,
      is_assured: belief.risk_is_shown,
      checks: belief.checks,
    });
  }
  return { belief: found };
}

// A person's word on an answer; none takes it back.
export function rate(exchange, rating, correction) {
  delete exchange.rating;
  delete exchange.correction;
  if (!rating) return;
  exchange.rating = rating;
  if (correction.trim()) exchange.correction = correction.trim();
}
