"""Too short or too long."""

from fairlead.config.filters import ExtentConfig, LengthConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import words_of
from fairlead.data.views import answer_texts, prompt_text
from fairlead.records import Document, Record


def length(record: Record, config: LengthConfig) -> Kept | Dropped:
    """Whether prompt and answers, or the document, have the length they should."""
    if isinstance(record, Document):
        texts = [("document", record.text, config.document)]
    else:
        answers = [("answer", text, config.answer) for text in answer_texts(record)]
        texts = [("prompt", prompt_text(record), config.prompt), *answers]
    for name, text, extent in texts:
        if wrong := _wrong(text, extent):
            return Dropped(f"{name} has {wrong}")
    return Kept(record)


def _wrong(text: str, extent: ExtentConfig) -> str:
    """What is wrong with the text's length; nothing if it is right."""
    limits = [("characters", len(text), extent.min_characters, extent.max_characters)]
    if extent.min_words or extent.max_words:
        limits.append(("words", len(words_of(text)), extent.min_words, extent.max_words))
    for unit, count, least, most in limits:
        if count < least:
            return f"fewer than {least} {unit}"
        if most and count > most:
            return f"more than {most} {unit}"
    return ""
