"""Words of negation and doubt in English chest reports: data for mention_context.py, no logic.

Patterns are searched in a normalised sentence (mention_text.py), between spaces. Own work.
"""


def any_of(words: str) -> str:
    """Return a pattern for any one of the white-space separated patterns; ``_`` in a pattern stands for a space."""
    return f"(?:{'|'.join(word.replace('_', ' ') for word in words.split())})"


SEEN = any_of("""
    seen identified present evident visuali[sz]ed noted demonstrated apparent appreciated detected found observed suggested
    visible shown recogni[sz]ed suspected
""")
_BE = any_of("is are was were be been has_been have_been can_be could_be")
_ADVERB = any_of("definitely definitively clearly currently otherwise now again well also yet")
_DEGREE = any_of("completely entirely fully since now almost")
_SURELY = any_of("completely entirely definitely definitively fully reliably")
_QUALIFIED = any_of("""
    any a the appreciable significant significantly substantial substantially definite interval new acute really much marked
    gross relevant obvious convincing apparent
""")
_CANNOT = any_of("can_?not could_not not never")
_SHOW = any_of("show reveal demonstrate contain have see identify detect find appear_to_(?:be|have|show)")
_GOES_ON = r"(?= (?:$|[,;] ))"  # the sentence ends here, or its next item begins

# "No change in the effusion" denies nothing; neither does "not well seen".
IGNORED = (
    rf"(?:no|not|without|nor)(?: {_QUALIFIED}){{0,3}} changes?"
    rf"(?= {any_of('in of to from since compared when as noted is has the with')} )",
    rf"(?:no|not|without|nor)(?: {_QUALIFIED}){{0,3}} "
    + any_of("changed increase_(?:in|of) decrease_(?:in|of) improvement worsening progression difference interval_change"),
    r"without (?:interval |significant )?change",
    r"not (?:well|fully|completely|entirely|optimally|adequately) "
    + any_of("seen visuali[sz]ed evaluated assessed included imaged demonstrated"),
    r"not (?:included|imaged|only|simply|necessarily)",
    r"(?:nearly|almost|near|partially|partly|largely|mostly|virtually)(?: completely)? "
    + any_of("resolved cleared resolution clearing"),
    r"(?:near complete|partial|incomplete)(?: interval)? (?:resolution|clearing)(?: of)?",
    r"no (?:doubt|question)",
)
DOUBT_AFTER = (
    r"(?<= , )(?:possible|probable|suspected|questionable|questioned|equivocal|likely|unlikely|"
    rf"(?:{_CANNOT}|unable to) exclude)"
    r"(?= (?:$|[,;] |(?:at|in|on|within|over|along|bilaterally) ))",
    r"(?<= , )if (?:any|present)",
    rf"{_CANNOT}(?: be)?(?: {_SURELY})? (?:excluded|ruled out)",
    rf"(?:difficult|hard) to (?:{_SURELY} )?exclude",
    rf"{_BE} (?:also |again |therefore )?"
    + any_of("""
        possible suspected questioned questionable considered probable likely favored equivocal suggested unlikely not_likely
        a_possibility a_consideration a_concern
    """),
    r"(?:should|must|may|might|could|would|can) (?:also )?be (?:considered|suspected|present|possible)",
    r"(?:remains?|would be) (?:a )?"
    + any_of("possible possibility in_the_differential considered questionable consideration"),
)
CANNOT_EXCLUDE = (rf"(?:{_CANNOT}|unable to|difficult to|hard to)(?: {_SURELY})? (?:exclude|rule out)",)
DENIED_AFTER = (
    rf"(?:{_BE} |do not |does not |can )?(?:not|no longer|never) (?:be )?(?:{_ADVERB} )?{SEEN}",
    rf"(?:{_BE}|appears?|appear to be) (?:now )?(?:absent|excluded|ruled out)",
    rf"(?:has|have|had) (?:{_DEGREE} )?(?:resolved|cleared|disappeared)",
    rf"(?:has|have) (?:{_DEGREE} )?been (?:removed|drained|evacuated|excluded|ruled out)",
    r"(?:is|are|now) (?:completely |entirely |fully )?resolved",
    rf"{_BE} (?:looked for|searched for|sought) (?:and|but) not {SEEN}",
    rf"(?:is|are|was|were|has been|have been) (?:{_DEGREE} )?gone",
    r"(?:has|have|did) not (?:recurred?|reaccumulated?|developed?|returned?|reappeared?)",
    rf"(?:{_BE} )?(?:none|nil)(?: {SEEN})?{_GOES_ON}",
    rf"(?<= , )(?:no|no evidence|no signs?|absent|negative|resolved|gone){_GOES_ON}",
    r"(?:absent|negative|resolved)(?= $)",
)
DENIED_BEFORE = (
    rf"(?:do|does|did)(?: not|nt) (?:yet )?{_SHOW}",
    r"(?:can ?not|(?:can)t|could(?: not|nt)|unable to) (?:see|identify|detect|find|appreciate|make out)",
    r"(?:complete |interval )*(?:resolution|clearing|disappearance|removal) of",
    any_of("""
        no_longer resolved negative_for free_of free_from free clear_of absence_of lack_of devoid_of rather_than without nor
        neither no not denies never nothing none_of (?:is|are|was|were|does)nt unremarkable_for fails?_to nil zero
    """),
)
DOUBT_BEFORE = (
    any_of("""
        rule_out exclude may might could can(?=_(?:be|represent|reflect)) possible possibly possibility probable probably
        likely suspect suspected suspicious suspicion concern concerning worrisome question questions questioned
        questioning questionable equivocal borderline presumed presumably perhaps potential potentially suggest suggests
        suggesting suggestive suggested suggestion differential favor favors
        favored favoring thought_to believed_to felt_to consider consideration unlikely conceivably seemingly alternatively
        raises? evaluate_for if_there_is would_be_compatible_with query doubt doubtful
    """),
)

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
    a an the there this these small tiny trace mild mildly moderate moderately large severe severely minimal minimally stable
    unchanged persistent left right bilateral bibasilar increased increasing new but heart cardiac lungs? again old healed
    chronic subtle slight slightly patchy low mediastin\\w+ enlarged degenerative calcified tortuous prominent unremarkable
    normal status interval bony osseous
""")
FINITE = any_of("is are was were has have remains? appears? demonstrates? shows? contains? persists? reveals?")
SUBJECTS = any_of("""
    , and the there heart cardiac cardiomediastinal lungs mediastin\\w+ aort\\w+ trachea\\w* bony osseous visualized pulmonary
""")
