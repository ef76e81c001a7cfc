"""A loan advisor: three agents and a credit-score lookup, as a LangGraph user would write it."""

import hashlib
import os
from typing import TypedDict

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

MODEL = os.environ.get("LOAN_ADVISOR_MODEL", "gpt-oss-20b")
BASE_RATE = 3.9


class Loan(TypedDict, total=False):
    applicant: str
    amount: int
    purpose: str
    summary: str
    credit_score: int
    assessment: str
    apr: float
    letter: str


def ask(role: str, question: str) -> str:
    """One short answer. Small models ramble: the prompt is short and so is the answer."""
    model = ChatOpenAI(model=MODEL, temperature=0, max_tokens=40)
    answer = model.invoke([("system", role), ("user", question)])
    return str(answer.content).strip()


@tool
def credit_score(applicant: str) -> int:
    """The applicant's credit score, 300 to 850, as the bureau would report it."""
    digest = hashlib.sha256(applicant.lower().encode()).digest()
    return 300 + int.from_bytes(digest[:2], "big") % 551


def intake(loan: Loan) -> Loan:
    """The intake agent puts the application into one sentence."""
    question = f"{loan['applicant']} asks for {loan['amount']} dollars for {loan['purpose']}."
    return {"summary": ask("Summarise the loan request in one sentence.", question)}


def underwriter(loan: Loan) -> Loan:
    """The underwriter looks the credit score up and assesses the risk."""
    score = credit_score.invoke({"applicant": loan["applicant"]})
    question = (
        f"Credit score {score}, loan of {loan['amount']} dollars for {loan['purpose']}. Risk?"
    )
    assessment = ask("You are an underwriter. State the risk in one sentence.", question)
    apr = round(BASE_RATE + (850 - score) / 150, 2)
    return {"credit_score": score, "assessment": assessment, "apr": apr}


def advisor(loan: Loan) -> Loan:
    """The advisor writes to the applicant."""
    question = (
        f"Offer {loan['applicant']} {loan['amount']} dollars at {loan['apr']} percent a year."
    )
    return {"letter": ask("Write a friendly two-sentence loan offer.", question)}


graph = (
    StateGraph(Loan)
    .add_node("intake", intake)
    .add_node("underwriter", underwriter)
    .add_node("advisor", advisor)
    .add_edge(START, "intake")
    .add_edge("intake", "underwriter")
    .add_edge("underwriter", "advisor")
    .add_edge("advisor", END)
    .compile()
)
