"""Words of negation and doubt in English chest reports: data for mention_context.py, no logic.

Patterns are searched in a normalised sentence (mention_text.py), between spaces. Own work.
"""


def any_of(words: str) -> str:
    """Return a pattern for any one of the white-space separated patterns; ``_`` in a pattern stands for a space."""
    return f"(?:{'|'.join(word.replace('_', ' ') for word in words.split())})"


SEEN = any_of("""
    seen identified present evident visuali[sz]ed noted demonstrated apparent appreciated detected found observed suggested
    visible shown recogni[sz]ed suspected distinguished discerned discernible encountered revealed traced followed selected
    documented recorded determined available
""")
_BE = any_of("is are was were be been has_been have_been can_be could_be")
_ADVERB = any_of("definitely definitively clearly currently otherwise now again well also yet")
_DEGREE = any_of("completely entirely fully since now almost")
_SURELY = any_of("completely entirely definitely definitively fully reliably")
_QUALIFIED = any_of("""
    any a the appreciable significant significantly substantial substantially definite interval new acute really much marked
    gross relevant obvious convincing apparent further additional notable considerable clear measurable visible more
""")
_CANNOT = any_of("can_?not could_not not never")
_SHOW = any_of("show reveal demonstrate contain have see identify detect find appear_to_(?:be|have|show)")
_HOLDS = any_of("shows? contains? has have had holds? demonstrates? reveals? harbou?rs? exhibits? displays?")
_LESS = any_of("increase decrease regression reduction growth shrinkage resolution clearing recession")
# "No increase in heart size" denies an enlargement; "no increase in the density of the nodule" denies no nodule.
_OF_A_FINDING = (
    r"of (?:the |this |these )?(?:[a-z]+ ){0,2}(?:nodules?|lesions?|mass|masses|consolidations?|opacity|opacities|effusions?)"
)
_NORMAL_MEASURE = (
    r"(?! (?:in|of) (?:the )?(?:cardiothoracic|heart|cardiac|"
    rf"(?:[a-z]+ ){{0,2}}(?:density|thickness|attenuation)(?! {_OF_A_FINDING})) )"
)
_NOT_YET = any_of("resolved cleared disappeared regressed receded changed")
_FORMER = any_of("previous prior old earlier former past last comparison outside initial baseline preceding yesterdays")
_STUDY = any_of("examination exam study film radiograph image ct scan x_ray")
_THEN = (  # an earlier examination, of which something may be said while the contrary is true of today
    rf"(?:(?:in|on|at|by) (?:(?:the|his|her|a|an|any|most|recent|immediate) )*(?:{_FORMER}|{_STUDY} (?:of|from|dated))|"
    r"previously|formerly|before|earlier|yesterday|in (?:19|20)[0-9]{2}|last (?:night|week|month|year)|"
    r"(?:a|one|two|three|four|five|six|several|few|[0-9]+) (?:hours?|days?|weeks?|months?|years?) (?:ago|before|earlier|prior)"
    r")"
)
_GOES_ON = r"(?= (?:$|[,;] ))"  # the sentence ends here, or its next item begins
_ENDS = (  # no object follows: the cue speaks of what stands before it
    r"(?= (?:$|[,;] |(?:and|but|at|in|on|with|without|by|given|from|due|because|although|though|despite|under|here) ))"
)
_HARD = any_of("difficult hard impossible not_possible not_easy unable")
_EXCLUDE = any_of("exclude rule_out")

# "No change in the effusion" denies nothing; neither does "not well seen".
IGNORED = (
    rf"(?:{_BE} |do not |does not |can )?(?:not|cannot|never) (?:be )?(?:{_ADVERB} )?{SEEN} {_THEN}",
    rf"{_BE} absent {_THEN}",
    rf"(?:not |never )?(?:previously|formerly) (?:not |never )?"
    rf"(?:{SEEN}|absent|clear|normal|described|reported|known|mentioned)",
    rf"(?:no|not|without|nor)(?: {_QUALIFIED}){{0,3}} changes?"
    rf"(?= {any_of('in of to from since compared when as noted is has the with')} )",
    rf"(?:no|not|without|nor)(?: {_QUALIFIED}){{0,3}} "
    + any_of("changed improvement worsening progression difference interval_change"),
    rf"(?:no|not|without|nor)(?: {_QUALIFIED}){{0,3}} {_LESS}(?= (?:in|of|since|compared|when|as|is|was|$)){_NORMAL_MEASURE}",
    rf"(?:has|have|is|are|was|were|did) not (?:yet )?(?:(?:been|fully|completely|entirely) )?{_NOT_YET}",
    r"without (?:interval |significant )?change",
    rf"(?:no|not|without|nor)(?: {_QUALIFIED}){{0,3}} enlargement (?:of|in)(?= (?:[a-z]+ ){{0,3}}"
    r"(?:nodules?|mass|masses|lesions?|effusions?|consolidations?|cysts?) )",
    r"not (?:well|fully|completely|entirely|optimally|adequately) " + any_of("seen visuali[sz]ed demonstrated"),
    r"not (?:only|simply|necessarily)",
    r"(?:nearly|almost|near|partially|partly|largely|mostly|virtually)(?: completely)? "
    + any_of("resolved cleared resolution clearing"),
    r"(?:near complete|partial|incomplete)(?: interval)? (?:resolution|clearing)(?: of)?",
    r"no (?:doubt|question|mistaking|denying)",
)
DOUBT_AFTER = (
    r"(?<= , )(?:possible|probable|suspected|questionable|questioned|equivocal|likely|unlikely|"
    rf"(?:{_CANNOT}|unable to) exclude)"
    r"(?= (?:$|[,;] |(?:at|in|on|within|over|along|bilaterally) ))",
    r"(?<= , )if (?:any|present)",
    rf"{_CANNOT}(?: be)?(?: {_SURELY})? (?:excluded|ruled out)",
    rf"not (?:{_SURELY} )?(?:excluded|ruled out)",
    rf"(?:possible|probable|suspected|questionable|unlikely|doubtful|equivocal){_GOES_ON}",
    rf"{_HARD} to (?:{_SURELY} )?{_EXCLUDE}{_ENDS}",
    r"not (?:be )?(?:confirmed|verified|corroborated|reproduced)",
    rf"{_BE} (?:also |again |therefore )?"
    + any_of("""
        possible suspected questioned questionable considered probable likely favored equivocal suggested unlikely not_likely
        a_possibility a_consideration a_concern
    """),
    r"(?:should|must|may|might|could|would|can) (?:also )?be (?:considered|suspected|present|possible)",
    r"(?:remains?|would be) (?:a )?"
    + any_of("possible possibility in_the_differential considered questionable consideration"),
)
CANNOT_EXCLUDE = (
    rf"(?:{_CANNOT}|{_HARD} to)(?: {_SURELY})? {_EXCLUDE}",
    r"whether(?: (?!and |but |which )[a-z0-9]+){1,8}",
)
DENIED_AFTER = (
    rf"(?:{_BE} |do not |does not |can )?(?:not|cannot|no longer|never) (?:be )?(?:{_ADVERB} )?{SEEN}",
    rf"(?:{_BE}|appears?|appear to be) (?:now )?(?:{_DEGREE} )?(?:absent|excluded|ruled out)",
    rf"(?:{_BE}|has|have) (?:now )?(?:{_DEGREE} )?re ?expanded",
    rf"(?:has|have|had) (?:{_DEGREE} )?(?:resolved|cleared|disappeared)",
    rf"(?:has|have) (?:{_DEGREE} )?been (?:removed|drained|evacuated|excluded|ruled out|taken out|withdrawn|extracted)",
    r"(?:is|are|now) (?:completely |entirely |fully )?resolved",
    r"(?:completely|entirely|totally|fully) (?:regressed|receded)",
    r"(?:shows?|showed|with) (?:a )?(?:complete|total) (?:regression|resolution|clearing)",
    r"(?:has been|have been|is|are|now) (?:completely |entirely |fully )?replaced by",
    rf"{_BE} (?:looked for|searched for|sought) (?:and|but) not {SEEN}",
    rf"(?:is|are|was|were|has been|have been) (?:{_DEGREE} )?gone",
    r"(?:has|have|did) not (?:recurred?|reaccumulated?|developed?|returned?|reappeared?)",
    rf"(?:{_BE} )?(?:none|nil)(?: {SEEN})?{_GOES_ON}",
    r"(?<= , )none(?: seen)? (?:in|on|at) (?:either|both|any|the lungs?|the chest|the thorax)",
    rf"(?<= , )none (?:is|are|was|were|can be) {SEEN}",
    rf"(?<= , )(?:no|no evidence|no signs?|absent|negative|resolved|gone){_GOES_ON}",
    r"(?:absent|negative|resolved|no)(?= $)",
    rf"(?:excluded|ruled out){_GOES_ON}",
)
DENIED_BEFORE = (
    r"nor (?:is|are|was|were)(?: there)?(?: any| an?)?",
    # "Neither lung shows", "on no side is there": what is denied follows the verb.
    rf"(?:neither|none of)(?: (?!and |but |which |with |(?:is|are|was|were) )[a-z]+){{1,8}}? {_HOLDS}",
    rf"(?:no|not one|not a)(?: (?!and |but |which |with |or |nor |the |a |is |are |was |were )[a-z]+){{1,3}}? {_HOLDS}",
    r"(?:in|on|at|within) (?:neither|no|none of)(?: (?!and |but |which |with )[a-z]+){1,8}? (?:is|are|was|were)(?: there)?",
    r"nowhere(?: (?!and |but |which |with )[a-z]+){0,10}? (?:is|are|was|were)(?: there)?",
    rf"(?:do|does|did)(?: not|nt) (?:yet )?{_SHOW}",
    r"(?:can ?not|(?:can)t|could(?: not|nt)|unable to) (?:see|identify|detect|find|appreciate|make out)",
    any_of("""
        no_longer negative_for free_of free_from clear_of absence_of lack_of devoid_of rather_than without nor
        nowhere neither no not denies never nothing none_of (?:is|are|was|were|does)nt unremarkable_for fails?_to nil zero
        (?:excludes|rules_out)
    """),
)
# What has gone, up to "with", which tells what has come or is left: "removal of the tube with a new pneumothorax".
GONE_BEFORE = (
    r"(?:complete |interval |surgical )*(?:resolution|clearing|disappearance|removal|resection|excision) of",
    r"(?:complete|total|full) (?:regression|recession) of",
    r"resolved",
)
DOUBT_BEFORE = (
    any_of("""
        rule_out exclude may might could can(?=_(?:be|represent|reflect)) possible possibly possibility probable probably
        likely suspect suspected suspicious suspicion concern concerning worrisome question questions questioned
        questioning questionable equivocal borderline presumed presumably perhaps potential potentially suggest suggests
        suggesting suggestive suggested suggestion differential favor favors
        favored favoring thought_to believed_to felt_to consider consideration unlikely conceivably seemingly alternatively
        raises? evaluate_for if_there_(?:is|are) would_be_compatible_with query doubt doubtful
    """),
)

# Told of the past, up to a comma or to what is there today.
HISTORY = r"(?:history|anamnesis) of(?: (?!with |now )[^,; ]+)*"

# What was not judged: outside the field of view, obscured, not evaluated. Neither there nor absent.
_WELL = any_of("""
    well fully completely entirely optimally adequately reliably clearly properly sufficiently further separately effectively
    clinically satisfactorily accurately yet
""")
_JUDGED = any_of("evaluated assessed examined judged analy[sz]ed interpreted commented_on evaluable assessable interpretable")
_IMAGED = any_of("included imaged covered scanned")
_JUDGE = any_of("evaluate assess examine judge analy[sz]e interpret comment_on")
_JUDGING = any_of("evaluating assessing examining judging analy[sz]ing interpreting commenting_on")
_HINDERS = any_of("prevents? preclude[sd]? hampers? hinders? limits? impairs? impedes? restricts? prevented hampered limited")
_JUDGEMENT = any_of("evaluation assessment interpretation judg?ement visuali[sz]ation analysis examination")
_POORLY = any_of("poorly suboptimally incompletely insufficiently inadequately partially partly")
_POOR = any_of("""
    limited suboptimal restricted impaired hampered insufficient inadequate difficult hard impossible not_possible incomplete
    hardly_possible barely_possible scarcely_possible
    non_?diagnostic not_diagnostic not_optimal not_reliable unreliable not_adequate not_sufficient poor
""")
_FIELD = (
    r"(?:the )?(?:current |present )?(?:field of view|fov|field|images?|imaging|scans?|scanned|scanning|examination|study|"
    r"sections?|cross sections?|slices?|range|imaged|coverage)(?: (?:area|field|range|borders?|limits|volume|region|plane))?"
)
_HIDDEN = any_of("obscured masked hidden degraded blurred")
NOT_JUDGED_AFTER = (
    rf"(?:{_BE} |could |can )?{_CANNOT}(?: be| been)?(?: {_WELL}){{0,2}} (?:{_JUDGED}|{_IMAGED})(?! {_THEN} )"
    rf"(?: {_WELL}){{0,2}}",
    rf"(?:could|can) (?:only|hardly|barely|scarcely) be (?:{_POORLY} )?(?:{_JUDGED}|{_IMAGED})",
    rf"{_BE} {_JUDGED} only (?:{_POORLY}|to a limited (?:extent|degree)|within limits)",
    rf"not(?: [a-z]+){{0,2}} (?:enough|sufficiently)(?: [a-z]+)? (?:to be {_JUDGED}|to {_JUDGE}|for {_JUDGEMENT})",
    rf"(?:{_BE} |lies? |located )*(?:below|above|beyond|caudal to|cranial to) (?:the )?"
    r"(?:first|last|lowest|lowermost|highest|uppermost) (?:slices?|sections?|images?)",
    rf"(?:is|are|was|were) (?:partly |partially )?cut off(?= (?:$|(?:of|from|by|at) {_FIELD}))",
    rf"(?:do|does|did|could) not (?:fully |completely |entirely )?(?:enter|fall (?:with)?in(?:to)?|reach) {_FIELD}",
    rf"{_BE} (?:only )?{_POORLY} (?:{_JUDGED}|{_IMAGED}|seen|visuali[sz]ed|visible)",
    rf"{_BE} (?:evaluated|assessed|examined) (?:as )?(?:being )?(?:suboptimal(?:ly)?|poorly|insufficiently|limited)",
    rf"{_BE} of (?:limited|poor|low|insufficient|reduced) (?:assessability|evaluability|diagnostic [a-z]+|image quality)",
    rf"(?:{_BE} |lies? |located |remains? |left |partly |partially |mostly |completely )*"
    r"(?:outside|out of|not within|not in|beyond|excluded from|cut off by|only (?:partly|partially) (?:with)?in) (?:of )?"
    rf"{_FIELD}",
    rf"{_BE} (?:partly |partially |largely |completely )?{_HIDDEN}(?= (?:by|due|because|owing|$))",
    rf"(?:may|might|could|can) (?:easily |well )?(?:have been|be|go|remain) (?:missed|overlooked|unnoticed|{_HIDDEN})",
    rf"{_BE} (?:too )?(?:difficult|hard|impossible|not possible|not easy) to {_JUDGE}(?: {_WELL})?",
)
NOT_JUDGED_BEFORE = (
    rf"it (?:is|was) (?:{_POOR}|not easy) to (?:{_WELL} )?{_JUDGE}",
    rf"(?:{_CANNOT}|unable to|not possible to|impossible to|difficult to|hard to|fails? to)(?: {_WELL})? {_JUDGE}",
    rf"(?:do|does|did) not (?:allow|permit|enable) (?:an? |any )?(?:{_WELL} |reliable |adequate )?(?:{_JUDGEMENT}) (?:of|for)",
    rf"{_POOR} (?:for )?(?:the )?{_JUDGEMENT} of",
    rf"{_POOR} (?:for|in terms of|with regard to|regarding)(?= )",
    r"no (?:comment|statement|judg?ement|opinion|conclusion|assertion) (?:can|could|was|is) (?:be )?"
    r"(?:made|given|drawn|possible) (?:on|about|of|regarding|for|concerning)",
    rf"without {_JUDGEMENT} of",
    rf"{_HINDERS} (?:the |an? |any )?(?:reliable |adequate |optimal |detailed )?(?:{_JUDGEMENT} of|{_JUDGING})",
    r"(?:of no use|of little use|useless|unsuitable|not suitable|unhelpful|not helpful) (?:for|in|to) "
    rf"(?:{_JUDGING}|{_JUDGE})",
    r"(?:nothing|little)(?: [a-z]+)? can be said (?:about|of|on)",
    rf"{_CANNOT} be (?:said|told|decided|determined|ascertained) (?:whether|if)",
    rf"(?<=^ )not (?:{_JUDGED}|{_IMAGED}) ,",
)
# One that names its subject: "evaluation of the pulmonary arteries is limited".
NOT_JUDGED_WHOLE = (
    rf"whether(?: [a-z0-9]+){{1,12}} {_CANNOT} be (?:said|told|decided|determined|ascertained)",
    r"(?:no|neither|nothing|without)(?: (?:evidence|signs?|findings?|proof|clue))? for (?:or|nor) against"
    r"(?: (?!in |from |on |can |could |is )[a-z]+){1,6}",
    rf"{_JUDGEMENT}(?: (?!is |are |was |were )[a-z0-9]+){{0,14}} "
    rf"(?:(?:is|are|was|were|remains?)(?: [a-z]+ly| somewhat| very)? {_POOR}|"
    r"(?:could|can) ?not be (?:made|performed|done|carried out)(?: [a-z]+ly)?)",
)
# A reason is not what it keeps from being judged: "not assessed because of the effusion".
REASON = r"(?:because(?: of)?|due to|owing to|since|on account of|in view of|as a result of|secondary to|by)"

# Where a cue stops reaching.
BREAK = any_of("""
    ; but however although though yet except aside_from apart_from other_than with_the_exception_of save_for besides whereas
    while otherwise there_(?:is|are|remains?|has|have|was|were) which this_is this_may these followed_by in_the_setting_of
    in_this status_post superimposed_on within_(?:the|this|a)
    heart(?=_(?:size_)?(?:mildly_|moderately_|markedly_)?(?:enlarged|normal|large)_)
""")
# Items of a form or a list that state a finding in a word or two: "small", "none", "normal in size".
ATTRIBUTE = any_of("""
    none nil no yes present absent negative positive resolved normal clear unremarkable small tiny trace minimal mild moderate
    large severe marked stable unchanged improved worse increased decreased new old left right bilateral
""")
OPENS = any_of("""
    with a an the there this these small tiny trace mild mildly moderate moderately large severe severely minimal minimally
    stable unchanged persistent left right bilateral bibasilar increased increasing new but heart cardiac lungs? again old
    healed chronic subtle slight slightly patchy low mediastin\\w+ enlarged degenerative calcified tortuous prominent
    unremarkable normal status interval bony osseous
""")
# After a finding, without punctuation between them, these tell what the next one is like: "no effusion small nodule".
RUNS_ON = any_of("""
    small tiny trace mild mildly moderate moderately large severe severely minimal minimally stable unchanged persistent left
    right bilateral bibasilar biapical increased increasing worsening new old healed chronic subtle slight slightly patchy low
    tortuous calcified_granulomas? scattered multiple
""")
FINITE = any_of("is are was were has have remains? appears? demonstrates? shows? contains? persists? reveals?")
SUBJECTS = any_of("""
    , and the there heart cardiac cardiomediastinal lungs mediastin\\w+ aort\\w+ trachea\\w* bony osseous visualized pulmonary
""")
