"""What the graph is made of, as data: nodes with their key, relations with their ends, and the SQL of their rows.

A source is a SELECT over tables that the caller names (`awards`, `companies`, ...). A node's gives its key under the
key's name; a relation's gives `start_key` and `end_key`. Every other column that it must give is a property.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("text", "number", "whole", "flag", "day", "moment", "texts")


@dataclass(frozen=True, slots=True)
class Property:
    name: str
    kind: str = "text"  # one of KINDS


@dataclass(frozen=True, slots=True)
class Node:
    """One label. `unique`: properties that no two nodes share, where they are there at all."""

    label: str
    key: str
    source: str
    properties: tuple[Property, ...]
    indexed: tuple[str, ...] = ()
    full_text: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class Relation:
    """One type between two labels. Between two nodes there is one relation of a type, at most."""

    type: str
    start: Node
    end: Node
    source: str
    properties: tuple[Property, ...] = ()

    @property
    def name(self) -> str:
        return f"({self.start.label})-[{self.type}]->({self.end.label})"


Kind = Node | Relation


def _of(text: str) -> tuple[Property, ...]:
    """`"name, amount number"`: properties with their kinds."""
    parts = (part.split() for part in text.split(","))
    return tuple(Property(name, *kind) for name, *kind in parts)


COMPANY = Node(
    "Company",
    "company_id",
    """
    select company_id, companies.name, normalized_name, companies.uei, duns, cage_code as cage, address1 as address,
      city, state, zip, website, hubzone_owned, woman_owned, socially_and_economically_disadvantaged, aliases, agencies,
      award_count, total_funding, dominant_phase, is_multi_phase, first_award_date, last_award_date
    from companies left join (from matches where status = 'matched') as matches using (company_id)
    """,
    _of(
        "name, normalized_name, uei, duns, cage, address, city, state, zip, website, hubzone_owned flag,"
        " woman_owned flag, socially_and_economically_disadvantaged flag, aliases texts, agencies texts,"
        " award_count whole, total_funding number, dominant_phase, is_multi_phase flag, first_award_date day,"
        " last_award_date day"
    ),
    indexed=("name", "normalized_name", "state", "duns"),
    full_text=("name",),
    unique=("uei",),
)
AWARD = Node(
    "Award",
    "award_id",
    """
    select award_id, award_title as title, agency, branch, phase, program, award_amount, award_date, award_year,
      fiscal_year, topic_code, abstract, contract
    from awards
    """,
    _of(
        "title, agency, branch, phase, program, award_amount number, award_date day, award_year whole,"
        " fiscal_year whole, topic_code, abstract, contract"
    ),
    indexed=("award_date", "agency", "award_year"),
    full_text=("title",),
)
PATENT = Node(
    "Patent",
    "grant_doc_num",
    "select grant_doc_num, title, grant_date, appno_doc_num, appno_date, language from patents",
    _of("title, grant_date day, appno_doc_num, appno_date day, language"),
    indexed=("appno_date",),
    full_text=("title",),
)
ASSIGNMENT = Node(
    "PatentAssignment",
    "rf_id",
    "select distinct on (rf_id) rf_id, record_date, exec_date, conveyance_type, reel_no, frame_no from assignments"
    " order by rf_id, grant_doc_num",
    _of("record_date day, exec_date day, conveyance_type, reel_no, frame_no"),
    indexed=("record_date", "exec_date"),
)
ENTITY = Node(
    "PatentEntity",
    "entity_id",
    "select entity_id, name, normalized_name, kind, city, state, country from entities",
    _of("name, normalized_name, kind, city, state, country"),
)
AREA = Node(
    "CETArea",
    "cet_id",
    "select cet_id, name, definition, keywords, taxonomy_version from taxonomy",
    _of("name, definition, keywords texts, taxonomy_version"),
)

# How sure it is that an award belongs to a company: by what the company is identified.
AWARDED_TO = Relation(
    "AWARDED_TO",
    AWARD,
    COMPANY,
    """
    select award_id as start_key, company_id as end_key, award_date, lower(split_part(company_id, ':', 1)) as method,
      case split_part(company_id, ':', 1) when 'UEI' then 1.0 when 'DUNS' then 0.95 else 0.8 end as confidence
    from awards
    where company_id is not null
    """,
    _of("award_date day, confidence number, method"),
)
FUNDED = Relation(
    "FUNDED",
    AWARD,
    PATENT,
    "select award_id as start_key, grant_doc_num as end_key, confidence, method, evidence from award_patents",
    _of("confidence number, method, evidence"),
)
FOLLOWS = Relation(
    "FOLLOWS",
    AWARD,
    AWARD,
    """
    select to_award_id as start_key, from_award_id as end_key, confidence, same_tracking, same_topic, same_pi,
      years_between
    from progressions
    """,
    _of("confidence number, same_tracking flag, same_topic flag, same_pi flag, years_between number"),
)
ASSIGNED_VIA = Relation(
    "ASSIGNED_VIA",
    PATENT,
    ASSIGNMENT,
    "select grant_doc_num as start_key, rf_id as end_key, record_date from assignments where grant_doc_num <> ''",
    _of("record_date day"),
)
ASSIGNED_FROM = Relation(
    "ASSIGNED_FROM",
    ASSIGNMENT,
    ENTITY,
    """
    select rf_id as start_key, entity_id as end_key, max(date) as exec_date
    from parties where role = 'assignor' group by all
    """,
    _of("exec_date day"),
)
ASSIGNED_TO = Relation(
    "ASSIGNED_TO",
    ASSIGNMENT,
    ENTITY,
    """
    select rf_id as start_key, entity_id as end_key, max(date) as record_date
    from parties where role = 'assignee' group by all
    """,
    _of("record_date day"),
)
OWNS = Relation(
    "OWNS",
    COMPANY,
    PATENT,
    """
    select company_id as start_key, grant_doc_num as end_key, max(as_of_date) as as_of_date
    from company_patents group by all
    """,
    _of("as_of_date day"),
)
SUBCATEGORY_OF = Relation(
    "SUBCATEGORY_OF",
    AREA,
    AREA,
    "select cet_id as start_key, parent as end_key from taxonomy where coalesce(parent, '') <> ''",
)
_CLASSIFIED = 'score, classification, is_primary as "primary", evidence, classified_at, taxonomy_version'
_CLASSIFICATION = _of("score number, classification, primary flag, evidence, classified_at moment, taxonomy_version")
AWARD_APPLICABLE_TO = Relation(
    "APPLICABLE_TO",
    AWARD,
    AREA,
    f"select award_id as start_key, cet_id as end_key, {_CLASSIFIED} from award_classes",
    _CLASSIFICATION,
)
PATENT_APPLICABLE_TO = Relation(
    "APPLICABLE_TO",
    PATENT,
    AREA,
    f"select grant_doc_num as start_key, cet_id as end_key, {_CLASSIFIED} from patent_classes",
    _CLASSIFICATION,
)
SPECIALIZES_IN = Relation(
    "SPECIALIZES_IN",
    COMPANY,
    AREA,
    """
    select company_id as start_key, cet_id as end_key, award_count, total_funding, avg_score, dominant_phase,
      first_award_date, last_award_date, specialization_score
    from profiles
    """,
    _of(
        "award_count whole, total_funding number, avg_score number, dominant_phase, first_award_date day,"
        " last_award_date day, specialization_score number"
    ),
)

NODES = (COMPANY, AWARD, PATENT, ASSIGNMENT, ENTITY, AREA)
RELATIONS = (
    *(AWARDED_TO, FUNDED, FOLLOWS, ASSIGNED_VIA, ASSIGNED_FROM, ASSIGNED_TO, OWNS),
    *(SUBCATEGORY_OF, AWARD_APPLICABLE_TO, PATENT_APPLICABLE_TO, SPECIALIZES_IN),
)
