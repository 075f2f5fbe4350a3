// Two models' answers to one wish, to a sentence on how far they agree.

export function agreement(kind, one, other, nameOf) {
  if (kind === "classify" || kind === "name") return ofLabels(one, other, nameOf);
  if (kind === "locate") return ofBoxes(one, other);
  const isSame = one.text.trim() === other.text.trim();
  return isSame ? said(true, "Both say the same words.") : said(false, "They say it in different words.");
}

function ofLabels(one, other, nameOf) {
  const [ours, theirs] = [one, other].map((answer) => answer.labels.map((label) => label.id));
  const apart = [...ours.filter((id) => !theirs.includes(id)), ...theirs.filter((id) => !ours.includes(id))];
  if (!ours.length || !theirs.length) return said(false, "At least one answer names no label.");
  if (!apart.length) return said(true, "Both give the same labels.");
  const common = ours.filter((id) => theirs.includes(id)).map(nameOf);
  const alone = `They differ in ${apart.map(nameOf).join(", ")}`;
  return said(false, common.length ? `${alone}; both say ${common.join(", ")}.` : `${alone}.`);
}

function ofBoxes(one, other) {
  const [ours, theirs] = [one, other].map((answer) => answer.boxes.map((box) => box.fractions));
  if (!ours.length && !theirs.length) return said(true, "Both find nothing.");
  if (!ours.length || !theirs.length) return said(false, "Only one of them finds it.");
  const overlaps = paired(ours, theirs);
  const mean = overlaps.reduce((sum, share) => sum + share, 0) / Math.max(ours.length, theirs.length);
  const counts = ours.length === theirs.length ? "" : ` (${ours.length} and ${theirs.length} boxes; unpaired count 0)`;
  const what = overlaps.length === 1 && !counts ? "Overlap of their boxes" : "Mean overlap of their boxes";
  return said(mean >= 0.5, `${what}: IoU ${mean.toFixed(2)}${counts}.`);
}

// Overlaps of boxes paired one to one, the greatest first.
export function paired(ours, theirs) {
  const pairs = ours.flatMap((a, i) => theirs.map((b, j) => [iou(a, b), i, j])).sort((a, b) => b[0] - a[0]);
  const [usedOurs, usedTheirs, found] = [new Set(), new Set(), []];
  for (const [share, i, j] of pairs) {
    if (usedOurs.has(i) || usedTheirs.has(j)) continue;
    usedOurs.add(i);
    usedTheirs.add(j);
    found.push(share);
  }
  return found;
}

export function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const common = width > 0 && height > 0 ? width * height : 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return common / (area(a) + area(b) - common);
}

const said = (isSame, words) => ({ isSame, words });
