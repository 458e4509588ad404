"""Phrases that no model should learn to say: of web pages, of other assistants. English and Chinese."""

import re

from fairlead.config.filters import PhrasesConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import map_answers, outcome_of, prose, taught_texts
from fairlead.data.views import answer_texts, prompt_text
from fairlead.records import Conversation, Document, Record

_MAX_NOTICE = 200  # characters of a line that is a notice; longer ones are prose that has the words in it
_NOTICE = re.compile(
    r"all rights reserved|\b(?:this|our) (?:web)?site uses cookies|\bwe use cookies\b|accept (?:all )?cookies"
    r"|\b(?:subscribe|sign up) (?:to|for) (?:our|the|my)(?: \w+)? (?:newsletter|mailing list)"
    r"|\bread our (?:privacy|cookie) policy|\bterms of (?:use|service) and privacy policy"
    r"|\b(?:please )?(?:enable|turn on) javascript\b|\bjavascript (?:is|must be) (?:disabled|enabled)"
    r"|\bclick here to (?:subscribe|unsubscribe|read more|download)|\bskip to (?:main )?content\b"
    r"|\bshare (?:this )?on (?:facebook|twitter)\b|\blorem ipsum dolor\b|\bpowered by wordpress\b"
    r"|版权所有|版權所有|未经(?:本站|授权|许可|允许)[^\n]{0,12}(?:不得|禁止|严禁)(?:转载|复制|使用)|转载请注明|轉載請註明"
    r"|本(?:网|站|网站)使用\s*cookie|接受(?:所有|全部)\s*cookie|(?:扫码|扫描|长按)[^\n]{0,12}(?:关注|二维码)"
    r"|(?:点击|欢迎)(?:订阅|关注)(?:我们|本站|本号|公众号|我的)|关注(?:我们的)?(?:微信)?公众号|(?:点击|戳)(?:这里|此处|下方)?(?:查看|阅读)(?:更多|原文)"
    r"|(?:京|沪|粤|浙|苏|津|渝|川|鲁|闽)ICP备|责任编辑[:：]|分享到(?:微信|微博|朋友圈)",
    re.IGNORECASE,
)
# Who asks for a page, a mail or a notice shall get one with all that belongs to it
_ASKS_FOR_A_NOTICE = re.compile(
    r"web|site|page|html|cookie|copyright|newsletter|footer|legal|mail|translat|licen[cs]e|lorem|javascript|blog|post"
    r"|网[站页]|版权|订阅|邮件|翻译|公众号|备案|文案|推文|广告|声明|网頁|版權|翻譯",
    re.IGNORECASE,
)
_OF_AN_AI = (
    r"(?:AI|人工智能|人工智慧|大型?语言|大型?語言|语言|語言)[^，。\n]{0,12}?"
    r"(?:模型|助手|助理|机器人|機器人|程序|程式|系统|系統)"
)
_CANNED = re.compile(
    # In the first person: an essay may well say what GPT-3 can do as a language model
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"(?! (?:researcher|engineer|expert|scientist|developer))(?![^.\n]{0,90}\b(?:name|called)\b)"
    r"[^.\n]{0,70}?\b(?:i|i'm|my|me)\b"
    r"|\bi(?:'m| am) (?:just |only |merely )an? (?:ai|artificial intelligence|(?:large )?language model|machine)\b"
    r"|\bmy (?:knowledge|training)(?: data)? (?:cut-?off|cuts off|ends|only goes)\b"
    r"|\bas of my (?:last|latest) (?:knowledge |training )?update"
    r"|\bi(?:'m| am) chatgpt\b|\bi (?:was|am)(?: \w+)? (?:trained|developed|created) by openai\b"
    rf"|作[为為](?:一[个個名款种種位台])?(?:基于)?(?:{_OF_AN_AI}|AI|人工智能|人工智慧)[^。\n]{{0,12}}?我"
    r"|我(?:只|仅仅|不过)是一[个款种](?:AI|人工智能|语言|大型?语言|机器)"
    r"|截至我的?(?:知识|训练|最后)|我的知识库?(?:截至|截止)"
    r"|我是\s*ChatGPT|我[是由][^，。\n]{0,6}OpenAI[^，。\n]{0,6}(?:训练|开发|研发|创建)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\W*(?:"
    r"(?:i(?:'m| am)(?: very| really| so| truly)? sorry|i apologi[sz]e|(?:my )?apologies|sorry|unfortunately|i regret)"
    r"\b[^.\n]{0,60}?\b(?:i|we)(?: \w+)? ?(?:cannot|can't|can not|could not|couldn't|unable|not able|won't|will not|"
    r"'m not able|'m unable|not allowed|not comfortable)\b"
    r"|i(?: am|'m) (?:sorry|afraid),? (?:but )?(?:that )?i (?:cannot|can't|can not|won't|will not)\b"
    r"|i (?:simply )?(?:cannot|can't|can not|won't|will not|am unable to|am not able to|am not allowed to|'m unable to)"
    r" (?:in good conscience )?(?:assist|help|provide|fulfil?l?|comply|answer|create|generate|engage|support|write|"
    r"discuss|offer|do that|do this|share|give)\b"
    r"|i'm (?:unable|not able|not allowed) to\b"
    r"|(?:非常|很|十分|真的|真是|实在|實在)?(?:抱歉|对不起|對不起|遗憾|遺憾|不好意思)[^。\n]{0,30}?"
    r"(?<![您你们])(?:无法|不能|不可以|没有办法|没办法|没法|没有能力|不会为|不会提供|拒绝|無法|沒有辦法|拒絕)"
    r"|我(?:无法|不能|不可以|没有办法|没办法|没有能力|無法)(?:直接)?(?:提供|回答|帮助|帮|协助|满足|生成|完成|为你|为您|给你|给您|支持|讨论|参与|創|幫)"
    r")",
    re.IGNORECASE,
)


def phrases(record: Record, config: PhrasesConfig) -> Kept | Dropped:
    """Whether the answers, or the document, are free of such phrases; lines that are notices can be cut."""
    texts = [text.replace("’", "'") for text in taught_texts(record)]
    own = [phrase.casefold() for phrase in config.own]
    for text in texts:
        if found := next((phrase for phrase in own if phrase in text.casefold()), None):
            return Dropped(f"holds the phrase {found!r}")
    # Of two answers that decline, people may well have preferred one
    if isinstance(record, Conversation | Document):
        if config.canned == "drop" and any(map(_CANNED.search, texts)):
            return Dropped("canned phrase of an assistant")
        if config.refusals == "drop" and isinstance(record, Conversation) and any(map(_REFUSAL.match, texts)):
            return Dropped("refusal")
    if config.boilerplate == "keep" or _ASKS_FOR_A_NOTICE.search(prompt_text(record)):
        return Kept(record)
    return _without_notices(record, config)


def _without_notices(record: Record, config: PhrasesConfig) -> Kept | Dropped:
    if not any(map(_has_notice, answer_texts(record))):
        return Kept(record)
    if config.boilerplate == "drop":
        return Dropped("boilerplate of a web page")
    clean = map_answers(record, _cut)
    return Kept(record) if clean == record else outcome_of(record, clean, "boilerplate")


def _has_notice(text: str) -> bool:
    return any(map(_is_notice, prose(text).split("\n")))


def _cut(text: str) -> str:
    """The text without lines that are notices; one with code is left alone."""
    if not _has_notice(text):
        return text
    # A line that opens or closes code stays: without it the rest would be read as something else
    kept = (line for line in text.split("\n") if "```" in line or not _is_notice(prose(line)))
    return "\n".join(kept).strip("\n")


def _is_notice(line: str) -> bool:
    return len(line) <= _MAX_NOTICE and _NOTICE.search(line) is not None
