"""Which records the data refinery keeps, what it changes in them, and where the numbers come from.

Gopher: Rae et al. 2021, table A1. C4: Raffel et al. 2020, section 2.2. Measured: the highest value that good rows of
public chat data (Alpaca, ShareGPT, MOSS, OpenAssistant; English and Chinese) have, with room above it.
A length or count of 0 sets no limit, and so does a share of 1.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from fairlead.config.section import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Action = Literal["off", "mask", "drop"]
LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class RepairConfig(Section):
    """Mend broken encodings; code is left as it is."""

    enabled: bool = True
    """Run this step."""
    mojibake: bool = True
    """Undo UTF-8 that was read as another encoding, such as `â€™` for an apostrophe."""
    html_entities: bool = True
    """Write the character for `&quot;` and its like, except in texts that speak of HTML."""
    control_characters: bool = True
    """Take out control characters, byte-order marks and terminal colours; tab and line breaks stay."""
    max_lost: Share = 0.005
    """Drop a record whose share of U+FFFD, the mark of a lost character, is larger."""


class LanguageConfig(Section):
    """Keep some languages alone."""

    keep: tuple[LanguageCode, ...] = ()
    """Codes of the languages to keep, such as `en,zh`; none: all. Chinese of both scripts is `zh`."""
    min_letters: PositiveInt = 30
    """Answers with fewer letters have no known language, if not their script tells it, and are kept."""
    min_confidence: Share = 0.6
    """So have those of which the model of languages is less sure, as a probability."""

    @property
    def enabled(self) -> bool:
        """Whether any language is left out."""
        return bool(self.keep)


class ExtentConfig(Section):
    """How long a text may be. A word is a run of letters and digits, or one character of a script without spaces."""

    min_characters: NonNegativeInt = 0
    """Fewest characters."""
    max_characters: NonNegativeInt = 0
    """Most characters."""
    min_words: NonNegativeInt = 0
    """Fewest words."""
    max_words: NonNegativeInt = 0
    """Most words."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for unit in ("characters", "words"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if most and least > most:
                raise ValueError(f"min_{unit}={least} is more than max_{unit}={most}; swap them, or set one to 0")
        return self


class LengthConfig(Section):
    """Drop what is too short or too long."""

    enabled: bool = True
    """Run this step."""
    prompt: ExtentConfig = ExtentConfig(max_words=20_000)
    """All turns before the last answer."""
    answer: ExtentConfig = ExtentConfig(max_words=20_000)
    """Every answer."""
    document: ExtentConfig = ExtentConfig(min_words=5, max_words=100_000)
    """Text for pre-training. Fewest: a line of C4; most: Gopher. Gopher's fewest, 50, would lose poems."""


class RepetitionConfig(Section):
    """Drop texts that repeat themselves; code blocks are not looked at."""

    enabled: bool = True
    """Run this step."""
    min_words: PositiveInt = 50
    """Shares are measured of texts with at least this many words."""
    max_line_share: Share = 0.65
    """Largest share of lines that stood before. Songs reach 0.6 (measured); for web pages Gopher has 0.3."""
    words: PositiveInt = 5
    """Width of the word runs that are compared."""
    characters: PositiveInt = 10
    """Width of the runs in Chinese, in characters."""
    max_run_share: Share = 0.45
    """Largest share of such runs that stood before (measured: 0.4)."""
    max_same: NonNegativeInt = 50
    """Longest run of one letter, emoji or punctuation mark, rulers such as `-----` excepted; 0 sets no limit."""


class SymbolsConfig(Section):
    """Drop texts that are hardly language; code blocks are not looked at."""

    enabled: bool = True
    """Run this step."""
    min_characters: PositiveInt = 100
    """Shares are measured of texts with at least this many characters, white space not counted."""
    max_symbols: Share = 0.4
    """Largest share of characters other than letters, digits, punctuation of prose; texts with code pass (measured)."""
    max_digits: Share = 0.8
    """Largest share of digits (measured)."""
    max_urls: Share = 0.8
    """Largest share of characters that belong to URLs (measured)."""


class PhrasesConfig(Section):
    """Phrases that no model should learn: of web pages, of other assistants. English and Chinese."""

    enabled: bool = True
    """Run this step."""
    boilerplate: Literal["keep", "cut", "drop"] = "cut"
    """Lines such as cookie notices, "all rights reserved", "版权所有": cut them, or drop the record (as C4 does)."""
    canned: Literal["keep", "drop"] = "drop"
    """Answers of conversations, and documents, with "As an AI language model, I", "作为一个人工智能语言模型，我"."""
    refusals: Literal["keep", "drop"] = "drop"
    """Conversations with an answer that begins with a refusal; keep them where a model shall learn to decline."""
    own: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()
    """Phrases of your own: answers and documents that hold one are dropped. Case makes no difference."""


class TruncatedConfig(Section):
    """Drop answers that break off."""

    enabled: bool = True
    """Run this step."""
    unclosed_code: bool = True
    """Drop an answer with a code block that is not closed."""
    dangling: bool = True
    """Drop an answer that ends with a comma or an empty list item."""
    unfinished_characters: NonNegativeInt = 1000
    """Drop an answer of at least this many characters that ends in the middle of a sentence; 0 keeps them."""


class PiiConfig(Section):
    """Personal data and secrets: leave them, put a placeholder such as [EMAIL] for them, or drop the record."""

    enabled: bool = True
    """Run this step."""
    email: Action = "mask"
    """Mail addresses."""
    phone: Action = "mask"
    """Phone numbers: Chinese ones, those with a country code, North American ones with separators."""
    id_card: Action = "mask"
    """Numbers of Chinese identity cards whose check digit is right."""
    key: Action = "mask"
    """Keys of AWS, GitHub, OpenAI, Google, Slack and Hugging Face; private key blocks."""
    ip: Action = "mask"
    """Public IP addresses, versions 4 and 6."""
    private_ips: bool = False
    """Treat addresses of private networks and of documentation as public ones."""
    address: Action = "off"
    """Chinese street addresses with a house number; they are as often those of shops and sights as of people."""


class ToxicityConfig(Section):
    """Drop records with listed words. Chinese is found anywhere in a text, other words as whole words."""

    built_in: bool = False
    """Use a short list of English and Chinese insults."""
    files: tuple[str, ...] = ()
    """Files of words or phrases of your own, UTF-8, one per line; lines that begin with # are comments."""
    where: Literal["answer", "everywhere"] = "answer"
    """Look at what a model learns to say alone, or at all texts of a record."""

    @property
    def enabled(self) -> bool:
        """Whether there is a list."""
        return self.built_in or bool(self.files)


class QualityConfig(Section):
    """Drop what looks more like your bad examples than like your good ones (logistic regression on hashed n-grams)."""

    good: tuple[str, ...] = ()
    """Files of good texts: .txt with one per line, or rows in any layout, of which answers and documents count."""
    bad: tuple[str, ...] = ()
    """Files of bad texts, likewise; with none of either the step is off."""
    min_score: Share = 0.5
    """Drop a record with an answer that is good with a smaller probability."""
    min_accuracy: Share = 0.7
    """Stop where fewer of the held-out fifth of the examples are told apart, good and bad counting the same."""
    seed: NonNegativeInt = 0
    """Decides which examples are held out."""

    @property
    def enabled(self) -> bool:
        """Whether there is something to learn from."""
        return bool(self.good)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.good) != bool(self.bad):
            given, missing = ("good", "bad") if self.good else ("bad", "good")
            raise ValueError(f"quality.{given} goes with quality.{missing}; give both, or none")
        return self


class FiltersConfig(Section):
    """Steps that keep, change or drop one record, in the order they run."""

    repair: RepairConfig = RepairConfig()
    """Broken encodings."""
    script: Literal["keep", "simplified", "traditional"] = "keep"
    """Write Chinese in this script; needs the package opencc."""
    language: LanguageConfig = LanguageConfig()
    """Languages to keep."""
    length: LengthConfig = LengthConfig()
    """Too short or too long."""
    repetition: RepetitionConfig = RepetitionConfig()
    """Repeats itself."""
    symbols: SymbolsConfig = SymbolsConfig()
    """Hardly language."""
    phrases: PhrasesConfig = PhrasesConfig()
    """Boilerplate, canned phrases, refusals."""
    empty: bool = True
    """Drop records with an answer, or a document, of white space and punctuation alone."""
    truncated: TruncatedConfig = TruncatedConfig()
    """Breaks off."""
    pii: PiiConfig = PiiConfig()
    """Personal data and secrets."""
    toxicity: ToxicityConfig = ToxicityConfig()
    """Listed words."""
    quality: QualityConfig = QualityConfig()
    """A small trained classifier."""
