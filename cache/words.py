"""Closed classes of English words that the guard reasons with; subject words are never listed here.

Lists name function words, number words, negators, calendar words, units of form (language, format, length) and a few
hundred everyday synonyms. What is not listed is a content word, and a changed content word forbids a hit.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words(
    """a an the this that these those there here it its itself of in on at by as for with about into onto to from and
    or but so if then than be is are was were been being am do does did done doing have has had having will
    would shall should can could may might must ought i me you we us one someone anyone somebody anybody my your
    our what which who whom whose when where why how s t d ll m re ve let us's'"""
)
NEGATORS = _words(
    """not no never none nobody nothing nowhere neither nor cannot without except unless hardly scarcely barely non
    unable fail fails failed lack lacks lacking avoid avoiding instead"""
)
_TWO_TO_TWENTY = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_TWO_TO_TWENTY, start=2)} | {
    "zero": "0",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "million": "1000000",
    "billion": "1000000000",
}
CALENDAR_WORDS = _words(
    """january february march april may may^ june july august september october november december jan feb mar apr jun
    jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday spring summer autumn
    fall winter today tomorrow yesterday tonight morning afternoon evening night noon midnight week weekend
    month quarter year decade century semester term annual annually daily weekly monthly yearly ago next last
    previous upcoming am pm bc ad bce ce millennium era mon tue tues thu thur thurs fri weekday weekdays weekends
    dawn dusk sunrise sunset noontime lunchtime bedtime christmas easter halloween thanksgiving ramadan diwali
    hanukkah eve twenties thirties forties fifties sixties seventies eighties nineties gmt utc est edt pst pdt cet
    bst ist fiscal"""
)
NEGATIVE_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "anti")
NEGATIVE_SUFFIX = "less"
TIME_WORDS = _words(
    """today tonight yesterday tomorrow overnight now nowadays moment time hour hours minute minutes morning afternoon
    evening night week weekend month year day days date current currently latest newest live real realtime up
    recent weather headline headlines forecast news new going happening price prices exchange trading worth
    bitcoin btc ethereum stock stocks share shares dollar euro pound yen until till left remain remaining
    remains traffic rain snow sunny hot cold warm winning leading playing ahead lead score closed ago"""
)
LISTING_VERBS = _words("name list give suggest recommend tell show pick choose write mention only exactly least most")
STRONG_PREPOSITIONS = _words(
    """from than before after until till since against between among via per versus vs under over above below beneath
    behind beyond within outside inside toward towards despite although unlike"""
)
OPPOSED_PREPOSITIONS = STRONG_PREPOSITIONS | {"to", "into", "onto", "by"}
DIRECTED_PREPOSITIONS = STRONG_PREPOSITIONS | {
    "to",
    "into",
    "onto",
    "through",
    "in",
    "on",
    "at",
    "by",
    "for",
    "with",
    "of",
    "as",
}
MOVABLE_PREPOSITIONS = _words("in on at during for of within")
ENDING_PREPOSITIONS = DIRECTED_PREPOSITIONS | {"using", "without", "like"}
PERSONS = {
    **dict.fromkeys(("he", "him", "his", "himself"), "he"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "she"),
    **dict.fromkeys(("they", "them", "their", "theirs", "themselves"), "they"),
    **dict.fromkeys(("i", "me", "myself"), "i"),
    **dict.fromkeys(("you", "yourself"), "you"),
    **dict.fromkeys(("we", "us", "ourselves"), "we"),
    **dict.fromkeys(("my", "mine"), "my"),
    **dict.fromkeys(("your", "yours"), "your"),
    **dict.fromkeys(("our", "ours"), "our"),
}
AUXILIARIES = _words(
    """is are was were am be been being do does did has have had can could may might will would should must shall"""
)
GENERIC_PERSONS = frozenset({"i", "you", "we"})
THIRD_PERSONS = frozenset({"he", "she", "they"})
RELATED_QUESTIONS = (
    frozenset({"", "what be", "what do", "what can", "what should", "what", "how-to", "how"}),
    frozenset({"be", "do", "can"}),
)
USUAL_POLES = frozenset({"good", "best", "great", "better", "more", "most", "possible", "easy", "easiest", "easily"})
POLES = USUAL_POLES | _words(
    """bad worst worse terrible awful poor rich positive negative advantage advantages disadvantage disadvantages pros
    cons benefit benefits drawback drawbacks increase increases increasing decrease decreases decreasing lower
    higher lowest highest low high up down rise fall grow shrink gain lose loss profit win big small bigger
    smaller biggest smallest large largest short shortest tall early earlier late later first last stop begin
    end finish buy sell lend borrow on off in out bottom front hot cold warm cool old new young older newer
    younger oldest newest youngest male female man woman men women boy girl boys girls husband wife mother
    father son daughter brother sister king queen safe dangerous unsafe legal illegal impossible difficult cheap
    cheapest expensive fast fastest slow slowest strong weak dark heavy thin thick deep shallow wide narrow
    empty clean dirty wet dry loud quiet happy sad love hate dislike sometimes often rarely none less least only
    import export accept reject allow forbid enable disable exclude remove delete uninstall disconnect decrypt
    decode undo input output internal external public private domestic foreign modern ancient east west north
    south eastern western northern southern upper inner outer true false wrong incorrect failure alive dead
    similar similarity similarities same difference differences different differ differs common uncommon advantage
    death war peace friend enemy cause effect minimum maximum plus minus active passive liberal conservative"""
)
ADVERBS = _words(
    "ever really actually just even also still quite very too pretty rather exactly simply please maybe perhaps"
)
LIGHT_WORDS = _words(
    """way ways thing things people person someone best good great some any get make makes do take start use kind kinds
    type types find help helps know want need try go work tip tips reason reasons cause causes possible able better
    different own main like useful effective common give tell called mean means used using exist become"""
)
PAST = _words("was were did had been")
FUTURE = _words("will shall wo")
OBLIGATION = _words("should must ought shall")
WISH = _words("would might may could")
FORM_WORDS = _words(
    """answer respond reply write explain describe summarize summarise list table bullet bulleted json xml yaml csv
    markdown html code latex paragraph sentence word words character line page brief briefly short shorter
    concise detail detailed long longer simple simply formal informal example step rhyme poem essay email tweet
    exactly only most least maximum minimum limit child kid beginner expert english french german spanish
    italian portuguese dutch russian chinese japanese korean arabic hindi turkish polish swedish greek latin
    language translate format style tone
    sentences paragraphs lines pages steps examples bullets tables lists rhymes poems essays emails tweets
    haiku sonnet limerick rhyming verse song lyrics emoji emojis slang jargon bold italic italics uppercase
    lowercase capitals citation citations cite cited source sources reference references bibliography
    footnote footnotes layman laymans politely formally informally casually sarcastically humorously
    jokingly academically professionally objectively alphabetically chronologically ascending
    descending tense perspective persuasive academic sarcastic humorous metric imperial celsius
    fahrenheit kelvin plain plainly thorough thoroughly comprehensive summary outline headings heading
    schema diagram ascii unicode hex binary kids children toddler toddlers beginners experts novices
    python javascript typescript java rust kotlin swift ruby php perl haskell scala sql bash golang
    ukrainian romanian bulgarian hungarian czech slovak serbian croatian danish norwegian finnish
    icelandic estonian latvian lithuanian hebrew persian farsi urdu bengali punjabi tamil telugu thai
    vietnamese indonesian malay filipino tagalog swahili mandarin cantonese catalan welsh gaelic
    esperanto klingon"""
)
QUANTITIES = _words(
    """half halves third thirds quarter quarters fourth fifth sixth seventh eighth ninth tenth eleventh twelfth double
    triple quadruple twice thrice once dozen dozens pair pairs couple single first second both twin twins
    triplet triplets duo trio majority minority fraction percent percentage zero
    mm millimeter millimetre cm centimeter centimetre meter metre km kilometer kilometre inch inches foot feet ft
    yard yards mile miles mg milligram gram grams kg kilo kilos kilogram lb lbs pounds ounce ounces oz ton tons
    tonne tonnes ml milliliter millilitre liter liters litre litres gallon gallons pint pints quart quarts cup
    cups tablespoon tablespoons teaspoon teaspoons acre acres hectare hectares hz khz mhz ghz kb mb gb tb
    kilobyte megabyte gigabyte terabyte watt watts kilowatt kilowatts volt volts amp amps calorie calories
    kilocalorie joule joules usd eur gbp inr jpy cny dollars euros rupees yen yuan pesos rubles francs"""
)
"""Words that count or measure, besides numbers; a prompt that alone has one asks for another quantity."""
IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "wives": "wife", "lives": "life", "knives": "knife", "leaves": "leaf", "went": "go", "gone":
    "go",
    "goes": "go", "bought": "buy", "made": "make", "won": "win", "took": "take", "taken": "take", "gave": "give",
    "given": "give", "got": "get", "gotten": "get", "wrote": "write", "written": "write", "spoke": "speak",
    "spoken": "speak", "found": "find", "thought": "think", "taught": "teach", "kept": "keep", "left": "leave",
    "felt": "feel", "meant": "mean", "said": "say", "told": "tell", "knew": "know", "known": "know", "saw": "see",
    "seen": "see", "built": "build", "sent": "send", "spent": "spend", "lost": "lose", "paid": "pay", "ate": "eat",
    "eaten": "eat", "began": "begin", "begun": "begin", "became": "become", "ran": "run", "came": "come", "used":
    "use",
    "using": "use", "uses": "use", "died": "die", "dying": "die", "lying": "lie", "does": "do",
}  # fmt: skip
_SYNONYM_GROUPS = """
begin start commence|buy purchase|movie film|photo photograph picture pic image|car automobile|phone telephone
bike bicycle|big large|huge enormous massive|small little tiny|quick fast rapid speedy|quickly fast rapidly|help assist
repair fix mend|choose select pick|get obtain acquire|happen occur|enough sufficient|physician doctor|attorney lawyer
sofa couch|airplane plane aeroplane|ad advert advertisement|app application|info information|tv television
undergrad undergraduate|grad graduate|prof professor|class course|exam examination|lab laboratory|uni university
math maths mathematics|wealthy rich|approximately about roughly|correct right|incorrect wrong|shut close
usa us^ america u.s u.s.a|uk britain u.k|kilometer kilometre km|meter metre|color colour|favorite favourite
center centre|organize organise|analyze analyse|realize realise|program programme|grey gray|cheap inexpensive
smart intelligent clever|mobile cellphone|maximum max|minimum min|biggest largest greatest|highest tallest|average mean
okay ok|mum mom|dad father|mom mother|kid child|hard difficult tough challenging|easy straightforward effortless
hardest toughest|mandatory compulsory obligatory|fulfill fulfil satisfy|complete finish|predict forecast
essential necessary vital crucial|important significant|main major primary|make earn create|build construct
improve enhance boost|increase raise|reduce decrease lessen|way method manner approach|technique procedure
tip advice suggestion|problem issue|website webpage site|company firm|country nation|cost price|job occupation
error mistake|delete erase|believe think|speak talk|allow permit let|stop quit cease|teach instruct|salary wage
cab taxi|apartment flat|sick ill|weird strange odd|scared afraid frightened|angry furious|happy glad joyful
beautiful gorgeous|stupid dumb foolish|rubbish garbage trash|shop store|require need|use utilize utilise|show display
meaning definition|advantages benefits pros|advantage benefit|disadvantages drawbacks cons downsides
disadvantage drawback downside|computer pc|house home|famous renowned|various numerous|different distinct
trip journey|holiday vacation|brave courageous|rude impolite|quantity amount
safely securely|wish desire|guy man|answer reply
seek search|whole entire|odor smell|autumn fall|soon shortly|frequently often|usually typically normally
mostly mainly|instantly immediately|eventually finally|entirely completely totally|truly really actually
permanently forever|tasty delicious|silent quiet|calm relaxed|lonely alone|thief robber|sketch drawing
maintain keep|attempt try|difference differ distinction distinguish|similarity similar|finish end
hire recruit|ache pain|injure hurt|bug insect|rock stone|rubber eraser
illness disease sickness|physician doc|blog weblog|novice beginner|newbie beginner
"""
SYNONYMS = {
    word: group.split()[0] for line in _SYNONYM_GROUPS.strip().splitlines() for group in line.split("|")
    for word in group.split()[1:]
}  # fmt: skip
