"""What a creator uploads: the noisy text of a video about one intent."""

from __future__ import annotations

from msgspec import Struct

from stream.simulator.config import SimulatorConfig
from stream.simulator.texts.lexicon import Lexicon, Product
from stream.simulator.texts.noise import hashtag, misspell, pick, shout
from stream.simulator.texts.wording import Intent, Rand


class Upload(Struct, frozen=True, eq=False):
    """The fields of a `video` event, and what its text lets a reader see."""

    title: str
    caption: str
    author: str
    item_title: str
    ocr: str
    asr: str
    summary: str
    category: str
    mentions: tuple[tuple[int, int], ...]
    """(product, facets) that the text names, rightly or not: what a term matcher would find."""
    summary_mentions: tuple[tuple[int, int], ...]
    """The same for the summary, which may come later."""
    told_by: tuple[str, ...]
    """Fields that name the video's real subject."""
    misleading: bool


class _Draft:
    """Fills templates about one intent and keeps account of what was said where."""

    def __init__(
        self, lexicon: Lexicon, config: SimulatorConfig, intent: Intent, rand: Rand
    ) -> None:
        self.lists = lexicon.phrases.lists
        self.lang = lexicon.lang
        self.products = lexicon.products
        self.config = config
        self.intent = intent
        self.rand = rand
        product = intent.product
        self.info = product.category.kind == "info"
        self.name = product.names[int(rand() * len(product.names))]
        self.mentions: dict[int, int] = {}
        self.told_by: list[str] = []

    def _facet(self, number: int, low: int, high: int) -> int:
        """The facet, or by noise another one of its sort."""
        if self.rand() < self.config.facet_noise:
            return low + int(self.rand() * (high - low))
        return number

    def _slot(self, text: str, slot: str, words: str) -> str:
        """The attribute in its slot; not twice where the thing's name says it already."""
        if words in self.name and "{p}" in text:
            text = text.replace(f"{slot} {{p}}", "{p}").replace(f"{slot}{{p}}", "{p}")
        return text.replace(slot, words)

    def choose(self, name: str) -> str:
        if self.info and f"{name}_info" in self.lists:
            name += "_info"
        if self.intent.brand is None:
            name += "/unbranded"
        return pick(self.lists[name], self.rand)

    def fill(self, template: str, field: str) -> str:
        """The template with its slots filled."""
        if "{" not in template:
            return template
        intent, rand, product = self.intent, self.rand, self.intent.product
        attributes, uses = len(product.attributes), len(product.uses)
        mask = 0
        text = template
        if "{a}" in text:
            a = self._facet(intent.a, 0, attributes)
            mask |= 1 << a
            text = self._slot(text, "{a}", product.attributes[a])
        if "{b}" in text:
            b = self._facet(intent.b, 0, attributes)
            if mask >> b & 1:  # by noise the same as {a}
                b = intent.b if b != intent.b else intent.a
            mask |= 1 << b
            text = self._slot(text, "{b}", product.attributes[b])
        if "{u}" in text:
            use = self._facet(intent.use, attributes, attributes + uses)
            mask |= 1 << use
            text = text.replace("{u}", product.facet(use))
        if "{r}" in text and intent.brand is not None:
            mask |= 1 << intent.brand
            text = text.replace("{r}", product.facet(intent.brand))
        if "{n}" in text:
            text = text.replace("{n}", str(2 + int(rand() * 28)))
        if "{c}" in text:
            text = text.replace("{c}", product.category.name.lower())
        if "{m}" in text:
            text = text.replace("{m}", pick(self.lists["noise.mentions"], rand).lstrip("@"))
        if "{p}" in text:
            text = text.replace("{p}", self.name)
            self.tell(product, mask, field)
        if "{x}" in text:
            other = self.products[int(rand() * len(self.products))]
            text = text.replace("{x}", other.name)
            self.mentions[other.index] = self.mentions.get(other.index, 0)
        if mask and product.index in self.mentions:
            self.mentions[product.index] |= mask
        return text

    def tell(self, product: Product, mask: int, field: str) -> None:
        """The subject was named in a field."""
        self.mentions[product.index] = self.mentions.get(product.index, 0) | mask
        if field not in self.told_by:
            self.told_by.append(field)

    def noisy(self, text: str) -> str:
        if self.rand() < self.config.misspelling_rate:
            text = misspell(text, self.lang, self.rand)
        return text

    def tags(self, *, clear: bool) -> str:
        """Hashtags: some of the subject, most of them noise."""
        rand = self.rand
        tags = []
        if clear and rand() < 0.5:
            tags.append(hashtag(self.name, self.lang, rand))
            self.tell(self.intent.product, 0, "caption")
        if rand() < 0.3:
            tags.append(hashtag(self.intent.product.category.name.lower(), self.lang, rand))
        tags.extend("#" + pick(self.lists["noise.hashtags"], rand) for _ in range(int(rand() * 5)))
        return " ".join(dict.fromkeys(tags))

    def caption(self, *, clear: bool) -> str:
        rand = self.rand
        parts = [self.noisy(self.fill(self.choose("captions.clear"), "caption"))] if clear else []
        if not clear:
            parts.append(self.fill(pick(self.lists["captions.vague"], rand), "caption"))
        if rand() < 0.25:
            parts.append(pick(self.lists["noise.offtopic"], rand))
        if rand() < 0.25:
            parts.append(self.fill(self.choose("noise.promo"), "caption"))
        if rand() < 0.15:
            parts.append(pick(self.lists["noise.mentions"], rand))
        if rand() < 0.4:
            parts.append(pick(self.lists["noise.emoji"], rand))
        parts.append(self.tags(clear=clear))
        return " ".join(part for part in parts if part)

    def snippets(self, section: str, *, clear: bool, most: int) -> str:
        """Pieces of screen text or speech, few of them telling."""
        rand = self.rand
        pieces = []
        for _ in range(1 + int(rand() * most)):
            if clear and rand() < 0.4:
                pieces.append(self.noisy(self.fill(self.choose(f"{section}.clear"), section)))
            else:
                pieces.append(self.fill(pick(self.lists[f"{section}.noise"], rand), section))
        text = (" | " if section == "ocr" else ", ").join(pieces)
        if section == "asr" and rand() < 0.3:
            text = text[: max(8, int(len(text) * (0.5 + 0.5 * rand())))]
        return text


def compose(
    lexicon: Lexicon,
    config: SimulatorConfig,
    intent: Intent,
    rand: Rand,
    sensitive: int | None = None,
) -> Upload:
    """The upload about an intent; about something that must not carry a query, dressed up as
    that intent, where `sensitive` is a topic's number."""
    draft = _Draft(lexicon, config, intent, rand)
    lists = draft.lists
    if sensitive is not None:
        return _compose_sensitive(draft, lexicon, sensitive)
    product = intent.product
    misleading = rand() < config.misleading_share
    empty = rand() < config.empty_caption_share
    clear_title = rand() < config.clear_title_share
    if misleading:
        title = draft.fill(pick(lists["titles.mislead"], rand), "title")
    elif clear_title and not empty:
        title = draft.noisy(draft.fill(draft.choose("titles.clear"), "title"))
    elif rand() < 0.7:
        title = draft.fill(pick(lists["titles.vague"], rand), "title")
    else:
        title = ""
    title = shout(title, rand)
    told = not misleading and not empty
    caption = "" if empty and rand() < 0.4 else draft.caption(clear=told and rand() < 0.6)
    if empty and caption:
        caption = pick(lists["noise.emoji"], rand) * (1 + int(rand() * 3))
    item_title = ""
    item_share = config.item_title_share * (0.0 if misleading or empty else 1.0)
    if not draft.info and rand() < item_share:
        item_title = draft.fill(draft.choose("item_titles.templates"), "item_title")
    ocr = draft.snippets("ocr", clear=told, most=3) if rand() < 0.55 else ""
    asr = draft.snippets("asr", clear=told, most=3) if rand() < 0.55 else ""
    mentions = tuple(draft.mentions.items())
    draft.mentions = {}
    summary = ""
    if rand() < config.summary_share:
        summary = draft.fill(draft.choose("summaries.templates"), "summary")
    author = draft.fill(draft.choose("noise.authors"), "author")
    category = product.category.name if rand() < 0.55 else ""
    if misleading and mentions and rand() < 0.3:
        wrong = lexicon.products[mentions[0][0]]
        category = wrong.category.name
    return Upload(
        title=title,
        caption=caption,
        author=author,
        item_title=item_title,
        ocr=ocr,
        asr=asr,
        summary=summary,
        category=category,
        mentions=mentions,
        summary_mentions=tuple(draft.mentions.items()),
        told_by=tuple(draft.told_by),
        misleading=misleading,
    )


def _compose_sensitive(draft: _Draft, lexicon: Lexicon, topic: int) -> Upload:
    """Text that only a reader knows to be risky: the sign may stand in any one field."""
    rand, lists = draft.rand, draft.lists
    _, texts, hints = lexicon.phrases.sensitive[topic]
    hint = pick(hints, rand)
    dressed = rand() < 0.5
    place = int(rand() * 3)
    title = pick(texts, rand) if place == 0 else pick(lists["titles.vague"], rand)
    title = draft.fill(title, "title")
    caption = draft.caption(clear=dressed)
    if place == 1:
        caption = f"{pick(texts, rand)} {caption}"
    ocr = draft.snippets("ocr", clear=False, most=2) if rand() < 0.5 else ""
    if place == 2 or rand() < 0.3:
        ocr = f"{hint} | {ocr}" if ocr else hint
    asr = draft.snippets("asr", clear=False, most=2) if rand() < 0.5 else ""
    if place == 2 or rand() < 0.2:
        asr = f"{asr}, {hint}" if asr else hint
    if rand() < 0.4:
        caption += f" {hashtag(hint, draft.lang, rand)}"
    summary = ""
    if rand() < draft.config.summary_share:
        summary = pick(lists["summaries.sensitive"], rand).replace("{h}", hint)
    return Upload(
        title=shout(title, rand),
        caption=caption,
        author=draft.fill(pick(lists["noise.authors/unbranded"], rand), "author"),
        item_title="",
        ocr=ocr,
        asr=asr,
        summary=summary,
        category=draft.intent.product.category.name if rand() < 0.4 else "",
        mentions=tuple(draft.mentions.items()),
        summary_mentions=(),
        told_by=(),
        misleading=False,
    )
