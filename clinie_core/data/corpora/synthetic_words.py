"""Vocabulary of the synthetic notes; names of drugs are composed, so that a dev split contains unseen names."""

from __future__ import annotations

import random

__all__ = [
    "AMBIGUOUS_DRUGS",
    "draw_drug",
    "draw_finding",
    "draw_lab_test",
    "draw_problem",
    "draw_reaction",
    "draw_study",
]

_STARTS = (
    "bri cal dor fen gli hex ino jun kel lor mab nef oxa pra quin rel ser tam ulo vor wes xil yor zan "
    "cef dia eto flu gab lam met nor par sil tri val"
).split()
_MIDDLES = ["", *("ba ce di fa go ha li mo na pe ra so ti va xi zo dre phe tri lo mi cu").split()]
_ENDS = (
    "azole cillin dipine fibrate gliptin lukast mycin olol oxetine parin pril profen sartan statin tidine zepam"
).split()

AMBIGUOUS_DRUGS = ("lithium", "digoxin", "potassium", "magnesium", "iron", "vancomycin", "valproate", "glucose")
"""Words that are a drug when given and a test when measured."""

_SEVERITY = (
    "",
    "",
    "",
    "mild ",
    "severe ",
    "acute ",
    "chronic ",
    "worsening ",
    "intermittent ",
    "new-onset ",
    "recurrent ",
)
_SITE = (
    "left knee,right hip,lower back,abdominal,chest wall,left shoulder,right flank,calf,epigastric,neck,pelvic,facial"
).split(",")
_AILMENT = ("pain swelling weakness numbness tenderness stiffness abscess cellulitis fracture mass").split()
_DISEASE = (
    "hypertension,HTN,type 2 diabetes mellitus,T2DM,DM2,congestive heart failure,CHF,COPD,asthma,"
    "atrial fibrillation,afib,CKD stage 3,chronic kidney disease,hypothyroidism,GERD,pneumonia,sepsis,"
    "UTI,urinary tract infection,DVT,pulmonary embolism,PE,anemia,hyperlipidemia,HLD,gout,osteoarthritis,"
    "depression,anxiety,migraine,a cold,influenza,ESRD,CAD,coronary artery disease,sleep apnea,OSA,BPH,"
    "hepatitis C,cirrhosis,stroke,CVA,TIA,seizure disorder"
).split(",")
_SYMPTOM = (
    "shortness of breath,SOB,DOE,nausea,vomiting,N/V,fever,chills,cough,dizziness,headache,HA,fatigue,"
    "palpitations,diarrhea,constipation,syncope,weight loss,night sweats,rash,pruritus,confusion,"
    "insomnia,dysuria,hematuria"
).split(",")
_REACTION = (
    "rash,hives,angioedema,diarrhea,nausea,dizziness,dry cough,muscle aches,headache,hypotension,"
    "bradycardia,confusion,drowsiness,GI bleeding,hyponatremia,hyperkalemia,acute kidney injury,AKI,"
    "thrombocytopenia,QT prolongation,hypoglycemia"
).split(",")
_LAB = (
    "hemoglobin Hgb WBC platelets creatinine Cr BUN sodium troponin lactate INR A1c TSH BNP AST ALT LDL "
    "procalcitonin ESR CRP"
).split()
_STUDY = (
    "chest x-ray,CXR,CT of the chest,CT abdomen/pelvis,MRI of the brain,echocardiogram,TTE,EKG,ECG,"
    "renal ultrasound,lower extremity doppler,colonoscopy,EGD,stress test,CTA chest,head CT,V/Q scan"
).split(",")
_FINDING = (
    "right lower lobe consolidation,bibasilar atelectasis,small left pleural effusion,cardiomegaly,"
    "pulmonary edema,a 4 mm nodule,hydronephrosis,diverticulosis,a compression fracture of L2,"
    "mild interstitial opacities,ST depressions,left ventricular hypertrophy,LVH,"
    "moderate mitral regurgitation,gallstones,fatty liver"
).split(",")


def draw_drug(draw: random.Random) -> str:
    """Draw a drug name: composed from about 11,000 possibilities, or in 15% of cases an ambiguous name."""
    if draw.random() < 0.15:
        return draw.choice(AMBIGUOUS_DRUGS)
    name = draw.choice(_STARTS) + draw.choice(_MIDDLES) + draw.choice(_ENDS)
    return name.capitalize() if draw.random() < 0.25 else name


def draw_problem(draw: random.Random) -> str:
    """Draw a disease, a symptom, or an ailment with its site."""
    kind = draw.random()
    if kind < 0.4:
        return draw.choice(_DISEASE)
    if kind < 0.65:
        return draw.choice(_SEVERITY) + draw.choice(_SYMPTOM)
    return draw.choice(_SEVERITY) + draw.choice(_SITE) + " " + draw.choice(_AILMENT)


def draw_reaction(draw: random.Random) -> str:
    """Draw an adverse reaction to a drug; many of them are problems in other contexts."""
    return draw.choice(("", "", "severe ", "mild ")) + draw.choice(_REACTION)


def draw_lab_test(draw: random.Random) -> str:
    """Draw a laboratory test, in 20% of cases a drug level."""
    if draw.random() < 0.2:
        return draw.choice(AMBIGUOUS_DRUGS) + draw.choice((" level", ""))
    return draw.choice(_LAB)


def draw_study(draw: random.Random) -> str:
    """Draw an imaging study or another examination."""
    return draw.choice(_STUDY)


def draw_finding(draw: random.Random) -> str:
    """Draw a finding of an examination."""
    return draw.choice(_FINDING)
