"""How each language is written: the letters and words that the translation checks look for.

Patterns are regular expressions that ignore case. Numbers and languages are separated by spaces.
"""

from typing import NamedTuple

# Words that a chat model writes before a translation, in any language. A sign must follow words that also begin
# captions: "Natuurlijk grasland", "Claro en medio del bosque". "Voici" alone is not an introduction: "Voici une
# rivière" is a right translation of "Here is a river".
INTRODUCTION = (
    r"^\W*(here is|here's|as an ai|i'm sorry|i cannot|assistant\b|note\b"
    r"|com certeza|por supuesto|desde luego|bien sûr|вот перевод"
    r"|(aqui está|aquí está|voici|hier ist|hier is|ecco)( \w+){0,3} (tradu|übersetzung|vertaling)\w*)\b"
    r"|^\W*(当然|好的|以下是|물론|다음은)"  # a longer word may begin with these: 当然可以, 물론입니다
    r"|^\W*(sure|certainly|of course|ok|okay|claro|vale|certo|va bene|certamente|certainement|d'accord|klar|gerne?"
    r"|natürlich|selbstverständlich|natuurlijk|uiteraard|oké|конечно|разумеется|хорошо|ладно|没问题|네|알겠습니다"
    r"|sehr gerne?|graag gedaan|com prazer|avec plaisir|con mucho gusto|con piacere|с удовольствием"
    r"|english|portuguese|spanish|french|german|dutch|italian|chinese|korean|russian"
    r"|português|español|français|deutsch|nederlands|italiano|中文|한국어|русский)\s*([!,.;:，。！]|[–—-]\s)"
    r"|\((note|nota|anmerkung|opmerking|remarque|примечание)\b"
)
# Words of a chat model about its task, which may stand in an answer in any language. `Wording.talk` has the others.
TALK = (
    r"translat\w+|tradu[cirtzçj]\w*|übersetz\w*|vertal\w*|vertaal\w*|sorry|pardon|apolog\w+|unfortunately|please|you|your"
    r"|let me|let's|note that|note:|literally|i'm|i am|i can|i can't|i cannot|i have|i kept|i need|i do not|i don't"
    r"|the (user|caption|word|sentence|answer)|language model|[ak]i-assistent|as+istente? (de |di )?(ia|ai)"
)
# English captions about people and words, whose translations may have such words
SPEAKS = (
    r"translat\w*|help\w*|hope\w*|sorry|unfortunately|please|answers?|mean\w*|mistakes?|errors?|you|your|i|my|me"
    r"|english|british|language|texts?|phrase|sentence|caption|legend|words?|written|writing|inscription"
)
# English words that exist in no other of the six languages in Latin letters. The list has no loans ("parking", "pier",
# "track"), no words of another meaning ("red", "large", "some", "four") and no short words.
ENGLISH_WORDS = (
    "above across airport airports along and any around bare bareland beach behind beside between big black boat"
    " boats both bridge bridges brown building buildings bushes busy car cars church churches closely covered"
    " crops curved dark densely desert each eight empty every factories factory farmland farmlands field fields"
    " five forest forests from garden gardens grass gray grey ground harbor harbour highway hill hills house"
    " houses into island islands lake lakes lane lanes lawn located lots low many meadow meadows mountain"
    " mountains narrow near neatly next nine ocean orderly other parked people plane planes planted playground"
    " pond ponds railway railways residential river rivers road roads roof roofs rows runway runways scattered"
    " school schools several shaped ship ships shore shrubs side sides small snow square stadium storage straight"
    " street streets surrounded swimming tall the there this three through together town tree trees two under"
    " water wave waves which while white wide winding with without yellow"
)
ENGLISH_ALWAYS = "the this which would should their there where"  # whether the caption has them or not
LOANS = r"beach[ -]volley\w*"
LARGE_NUMBERS = r"\w+teen|(twen|thir|for|fif|six|seven|eigh|nine)ty|dozens|hundreds?|thousands?|millions?"
NO_NUMERAL = "(?<![十百几两三四五六七八九第])"
MEASURE_WORD = "(?=[个架座条艘辆棵块栋片排幢只根列层间家所处道行组台名位面半])"


class Wording(NamedTuple):
    """Letters and words of one language."""

    name: str  # in English
    letters: str  # character class
    numbers: str  # patterns of the words for 2 to 12
    neighbors: str = ""  # languages that it is mistaken for; lingua compares it with these
    telling: str = ""  # letters that show the language, because no neighbor has them
    talk: str = r"(?!)"  # pattern of words of a chat model about its task, which captions do not have
    open_ends: str = r"(?!)"  # pattern of words that cannot end a sentence
    implied: str = ""  # patterns of beginnings of words that imply the numbers 2 to 12
    loans: str = ""  # words of `ENGLISH_WORDS` that the language has, too
    plain: str = ""  # pattern of words that have lost their accents


PORTUGUESE = {"pt-BR": "Brazilian Portuguese", "pt-PT": "European Portuguese"}  # varieties that prompts may name
ROMANCE = "en es fr it pt ca ro de nl"
GERMANIC = "en de nl af da nb sv fr es it pt"
WORDING = {
    "en": Wording(
        name="English",
        letters="a-z",
        numbers="two three four five six seven eight nine ten eleven twelve",
        implied="both|pair|couple|doubl|twice|twin|second|half|halv|side|either|each|opposite third|tri"
        " four|quarter fif six seven eigh nin ten eleven twelfth|dozen",
        open_ends="a|an|the|of|with|and|in|on|to|by|at|from|or|for|between|near|is|are",
    ),
    "pt": Wording(
        name="Portuguese",
        letters="a-zàáâãçéêíóôõúü",
        numbers="dois|duas três quatro cinco seis sete oito nove dez onze doze",
        neighbors=ROMANCE,
        talk=r"perdão|respond(er|o)|entendi|erro|tente|não sei|significa|inglês|desculp\w*|lament\w*|sinto muito"
        r"|infelizmente|por favor|ajud\w+|posso|pude|consigo|tenho|sou|espero|você\w*|poderia|gostaria"
        r"|modelo de linguagem|inteligência artificial|solicitação|pergunta|legenda|frase|texto|palavra|contexto"
        r"|literal|observação:|em português|à disposição|não foi possível|faz sentido",
        open_ends="o|os|as|um|uma|uns|umas|de|do|da|dos|das|em|no|na|nos|nas|e|ou|com|por|entre|ao|aos|à|às|que|sem"
        "|pelo|pela",
        loans="playground",
        plain=r"\w+(cao|coes|oes)|\w{2,}ao|arvores?|edificios?|proxim[oa]s?|varios|varias",
    ),
    "es": Wording(
        name="Spanish",
        letters="a-záéíñóúü",
        numbers="dos tres cuatro cinco seis siete ocho nueve diez once doce",
        neighbors=ROMANCE,
        talk=r"perdón|perdona|responder|entiendo|comprendo|error|inténtelo|inténtalo|no sé|significa|inglés|inglesa"
        r"|lo siento|lament\w*|disculp\w*|desafortunadamente|por favor|ayud(?!ant)\w+|puedo|tengo|soy|espero|he"
        r"|usted\w*|podrías?|proporcione|desea|quieres|modelo de lenguaje|inteligencia artificial|solicitud"
        r"|pregunta|leyenda|frase|texto|palabra|contexto|literal|nota:|en español|a su disposición|no se ha podido"
        r"|tiene sentido",
        open_ends="el|la|los|las|un|una|unos|unas|de|del|en|y|o|con|por|entre|al|a|que|sin|su|sus",
        plain=r"\w+cion|arbol(es)?|avion|jardin|rios?|estan|aerea|pequen[oa]s?",
    ),
    "fr": Wording(
        name="French",
        letters="a-zàâæçéèêëîïñôœùûüÿ",
        numbers="deux trois quatre cinq six sept huit neuf dix onze douze",
        neighbors=ROMANCE,
        talk=r"répondre|erreur|réessayez|signifie|anglaise?|assistant ia|je suis désolée?|^désolée?,|excuses"
        r"|malheureusement|s'il te plaît|aider|je|j'\w+|vous|votre|vos|veuillez|modèle de langage"
        r"|intelligence artificielle|question|légende|phrase|texte|mot|contexte|littérale?|remarque ?:|en français",
        open_ends="le|la|les|l'|un|une|des|de|du|d'|et|ou|avec|par|pour|au|aux|à|que|dans|son|ses",
        loans="car cars lots plane planes square",
        plain=r"batiments?|forets?|rivieres?|ecoles?|eglises?|pres|a cote|situee|foncee",
    ),
    "de": Wording(
        name="German",
        letters="a-zäöüßàçéèê",
        numbers="zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
        neighbors=GERMANIC,
        talk=r"verzeihung|beantwort\w*|fehler|versuchen sie|bedeutet|englische[nr]?|auf englisch|tut mir leid"
        r"|leider|entschuldig\w*|bitte|helfen|hilft|ich|mir|mich|ihre anfrage|könnten sie|sprachmodell"
        r"|künstliche intelligenz|bildunterschrift|satz|text|wort|kontext|wörtlich\w*|anmerkung|hinweis|auf deutsch",
        open_ends="der|die|das|dem|den|eine|einer|eines|einem|einen|und|oder|von|zwischen|neben|im|am|zum|zur|vom"
        "|sowie",
        plain=r"gruen\w*|baeum\w*|gebaeude\w*|ueber|fuer|fuehr\w*|haeuser\w*|fluess\w*|huegel\w*|\w*waeld\w*"
        r"|\w*daech\w*|\w*flaech\w*",
    ),
    "nl": Wording(
        name="Dutch",
        letters="a-zàáâçèéêëíïñóöúü",
        numbers="twee drie vier vijf zes zeven acht negen tien elf twaalf",
        neighbors=GERMANIC,
        talk=r"antwoord\w*|een fout|probeer|betekent|engelse?|begrijp|spijt|excuses|helaas|alstublieft|helpen|helpt"
        r"|ik|mij|kunt u|u wilt|uw|als je nog|wil je|laat het me|taalmodel|kunstmatige intelligentie|verzoek"
        r"|bijschrift|zin|tekst|woord|context|letterlijke?|opmerking|let op|in het nederlands",
        open_ends="de|het|een|en|of|van|met",
        loans="water school plane",
    ),
    "it": Wording(
        name="Italian",
        letters="a-zàèéìíîòóùú",
        numbers="due tre quattro cinque sei sette otto nove dieci undici dodici",
        neighbors=ROMANCE,
        talk=r"perdon[aio]\w*|rispond(ere|o)|errore|riprova|capisco|capito|significa|inglese|cosa intend\w*"
        r"|dispiace|scus\w+|purtroppo|sfortunatamente|per favore|aiut\w+|posso|riesco|ho|spero|potresti|fammi|vuoi"
        r"|desideri|fornisci|sono in grado|non sono sicuro|stato possibile|modello linguistico"
        r"|intelligenza artificiale|richiesta|domanda|didascalia|frase|testo|parola|contesto|letterale|nota:"
        r"|in italiano|resto a",
        open_ends="il|lo|la|i|gli|le|un|uno|una|di|del|dello|della|dei|degli|delle|in|nel|nella|nei|e|o|con|per|tra"
        "|al|alla|ai|da|dal|dalla|che|è",
        plain=r"citta|piu|universita|c e",
    ),
    "zh": Wording(
        name="Chinese",
        letters="〇\u3400-\u9fff",
        numbers="[二两] 三 四 五 六 七 八 九 十 十一 十二",
        talk=r"原谅|回答|错误|重试|意思|英文|英语|助手|问题|翻译|译文|译[为成法]|直译|意译|抱歉|对不起|不好意思"
        r"|遗憾|无法(协助|帮助|提供|翻译|识别|处理|查看)|不到图|我(?!们|国)|您|你|请(提供|发送|问|输入)|请求|提问"
        r"|随时|希望(对|能|这)|语言模型|人工智能|文本|句子|这句|原文|说明文字|语境|如下[。：]|用中文",
        open_ends="一[座条片个架艘栋块]",
    ),
    "ko": Wording(
        name="Korean",
        letters="가-힣",
        numbers="두|둘 세|셋 네|넷 다섯 여섯 일곱 여덟 아홉 열 열한|열하나 열두|열둘",
        implied="두|이차 서너|삼[각거면차층] 사[각거면방차층] 대여섯|오[각거차층] 육[각거차층] 칠[각차층] 팔[각차층]"
        " 아홉 열 열한 열두",
        talk=r"못했습니다|답변\w*|이해하지|오류\w*|다시 시도\w*|뜻\w*|영어\w*|궁금\w*|어시스턴트\w*|말씀\w*"
        r"|\w*할게요|번역\w*|직역\w*|의역\w*|죄송\w*|미안\w*|안타깝\w*|도와\w*|도움\w*|저는|제가|\w*주세요"
        r"|\w*주시\w*|드리(?!우|워|운)\w*|\w*드릴\w*|\w*드렸\w*|\w*바랍니다|\w*까요|\w*겠습니다|\w*습니까"
        r"|언어 모델\w*|인공지능\w*|요청\w*|질문\w*|원문\w*|텍스트\w*|문맥\w*|한국어\w*|참고:",
        open_ends=r"\w+(를|에서|에는|으로|하며)",
    ),
    "ru": Wording(
        name="Russian",
        letters="а-яё",
        numbers="два|две|двух|двумя три|трёх|трех|тремя четыре|четырёх|четырьмя пять|пяти шесть|шести семь|семи"
        " восемь|восьми девять|девяти десять|десяти одиннадцать двенадцать",
        implied="дв три|трё|трех|тро четыр|четвер пят шест сем вос девят десят одиннадцат двенадцат|дюжин",
        neighbors="uk be bg mk sr",
        telling="ыэё",  # also Belarusian, which has і and ў in every sentence
        # "Стрелочный перевод" is a railway switch.
        talk=r"ответ\w*|ошибк\w*|попробуйте|понима\w*|означает|имеете в виду|английск\w*|ии-ассистент|перевед\w*"
        r"|перевест\w*|переведён\w*|(?<!стрелочн\w\w )(?<!стрелочн\w\w\w )перевод\w*|дословн\w*|извините|простите"
        r"|прошу|к сожалению|пожалуйста|помочь|помога\w*|я|мне|меня|вы|вам|вас|ваш\w*|к вашим|дайте|надеюсь"
        r"|не удалось|языкова\w* модель|искусственный интеллект|запрос|вопрос\w*|подпись|предложени\w*|текст\w*"
        r"|слово|фраз\w*|контекст\w*|оригинал\w*|примечание|по-русски",
        open_ends="и|в|во|на|с|со|у|к|из|или|для|между|под|над|от|до|при|через|по|а|за|которы[йеём]|котор(ая|ое|ую"
        "|ого|ой)",
    ),
}
