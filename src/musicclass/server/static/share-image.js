// A song's card as an image to keep or to send.
import {domToBlob} from "./lib/screenshot/index.mjs";

const CONTROLS = "button, label, details, .explanation, .similar-songs", MARGIN = 20; // pixels

/** A PNG of a card, as it is on the screen, without its controls and what is below its legends. */
export function renderCard(card) {
  const bottoms = [...card.querySelectorAll(".legend")].map(legend => legend.getBoundingClientRect().bottom);
  return domToBlob(card, {
    scale: devicePixelRatio,
    height: Math.max(...bottoms) - card.getBoundingClientRect().top + MARGIN,
    font: false, // no web fonts are embedded
    filter: node => !node.matches?.(CONTROLS),
    onCloneEachNode: removeDirectives,
    onCloneNode: clone => clone.firstElementChild.append("musicclass"),
  });
}

/** The image is made of XML, which forbids attributes such as @click. */
function removeDirectives(node) {
  for (const {name} of [...node.attributes ?? []]) if (/^(x-|[@:])/.test(name)) node.removeAttribute(name);
}
