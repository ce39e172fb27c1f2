{# How values of awards are cleaned. Used by pipelines/sbir; every macro takes SQL and gives SQL. #}

{# A text without the blanks around it; null where the source wrote one of its words for nothing. DuckDB keeps a vector of
   two thousand values for each part of an expression, so the parts are few, and a query that cleans many columns does
   it in a step of its own: what follows reads columns. #}
{% macro sbir_text(column) -%}
case when strlen({{ sbir_trimmed(column) }}) > 4 then {{ sbir_trimmed(column) }}
    when contains('  - n/a na nan none null \n ', concat(' ', lower({{ sbir_trimmed(column) }}), ' ')) then null
    else {{ sbir_trimmed(column) }} end
{%- endmacro %}

{% macro sbir_trimmed(column) -%}
trim({{ column }}, e' \t\r\n ')
{%- endmacro %}

{# Of a text that is clean: with one blank where there were several. #}
{% macro sbir_words(column) -%}
regexp_replace({{ column }}, '\s+', ' ', 'g')
{%- endmacro %}

{% macro sbir_amount(column) -%}
try_cast(replace(replace({{ column }}, '$', ''), ',', '') as decimal(18, 2))
{%- endmacro %}

{# A date as the source format declares it, or null. No other spelling is tried, and a year of two digits is none. #}
{% macro sbir_date(column, format) -%}
case when year({{ sbir_day(column, format) }}) between 1950 and 2150 then {{ sbir_day(column, format) }} end
{%- endmacro %}

{% macro sbir_day(column, format) -%}
case {{ format }}
{%- for name, spelled in var('sbir.extract.date_formats').items() %}
    when '{{ name }}' then try_strptime({{ column }}, [{{ spelled | literal }}])
{%- endfor %} end::date
{%- endmacro %}

{% macro sbir_flag(column) -%}
case upper({{ column }}) when 'Y' then true when 'YES' then true when 'N' then false when 'NO' then false end
{%- endmacro %}

{# I, 1, Phase 1, PHASE I ... -> Phase I #}
{% macro sbir_phase(column) -%}
case regexp_replace(upper({{ column }}), '^PHASE\s*', '')
    when 'I' then 'Phase I' when '1' then 'Phase I' when 'II' then 'Phase II' when '2' then 'Phase II'
    when 'III' then 'Phase III' when '3' then 'Phase III' end
{%- endmacro %}

{% macro sbir_program(column) -%}
case upper({{ column }}) when 'SBIR' then 'SBIR' when 'STTR' then 'STTR' when 'SBIR/STTR' then 'SBIR' end
{%- endmacro %}

{# Nine digits: without the apostrophe of a spreadsheet, with the zeros that it lost; null when it cannot be one. #}
{% macro sbir_duns(column) -%}
nullif(case when regexp_full_match(trim({{ column }}, ''''), '\d{7,9}')
    then lpad(trim({{ column }}, ''''), 9, '0') end, '000000000')
{%- endmacro %}

{% macro sbir_uei(column) -%}
case when regexp_full_match(upper({{ column }}), '[A-Z0-9]{12}') then upper({{ column }}) end
{%- endmacro %}

{# A company's name as it is compared: no accents, no punctuation, no legal form; usual words abbreviated. #}
{% macro sbir_name(column) -%}
trim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
    replace(lower(strip_accents({{ column }})), '''', ''), '[^a-z0-9]+', ' ', 'g'),
    '\b(inc|incorporated|llc|l l c|ltd|limited|corp|corporation|co|company|lp|llp|plc|pllc)\b', '', 'g'),
    '\btechnolog(ies|y)\b', 'tech', 'g'),
    '\bsystems?\b', 'sys', 'g'),
    '\binternational\b', 'intl', 'g'),
    '\b(laborator(ies|y)|labs)\b', 'lab', 'g'),
    ' +', ' ', 'g'))
{%- endmacro %}

{# The normalised names that one company alone has, of the keys of companies. #}
{% macro sbir_companies_by_name(keys) -%}
select normalized_name, min(company_id) as company_id
    from {{ keys }}
    where normalized_name <> ''
    group by normalized_name
    having count(distinct company_id) = 1
{%- endmacro %}

{# How many of these columns say something. #}
{% macro sbir_filled(columns) -%}
{% for column in columns %}({{ column }} is not null)::int{{ ' + ' if not loop.last }}{% endfor %}
{%- endmacro %}

{% set _states = {
    'ALABAMA': 'AL', 'ALASKA': 'AK', 'ARIZONA': 'AZ', 'ARKANSAS': 'AR', 'CALIFORNIA': 'CA', 'COLORADO': 'CO',
    'CONNECTICUT': 'CT', 'DELAWARE': 'DE', 'DISTRICT OF COLUMBIA': 'DC', 'FLORIDA': 'FL', 'GEORGIA': 'GA', 'HAWAII': 'HI',
    'IDAHO': 'ID', 'ILLINOIS': 'IL', 'INDIANA': 'IN', 'IOWA': 'IA', 'KANSAS': 'KS', 'KENTUCKY': 'KY', 'LOUISIANA': 'LA',
    'MAINE': 'ME', 'MARYLAND': 'MD', 'MASSACHUSETTS': 'MA', 'MICHIGAN': 'MI', 'MINNESOTA': 'MN', 'MISSISSIPPI': 'MS',
    'MISSOURI': 'MO', 'MONTANA': 'MT', 'NEBRASKA': 'NE', 'NEVADA': 'NV', 'NEW HAMPSHIRE': 'NH', 'NEW JERSEY': 'NJ',
    'NEW MEXICO': 'NM', 'NEW YORK': 'NY', 'NORTH CAROLINA': 'NC', 'NORTH DAKOTA': 'ND', 'OHIO': 'OH', 'OKLAHOMA': 'OK',
    'OREGON': 'OR', 'PENNSYLVANIA': 'PA', 'RHODE ISLAND': 'RI', 'SOUTH CAROLINA': 'SC', 'SOUTH DAKOTA': 'SD',
    'TENNESSEE': 'TN', 'TEXAS': 'TX', 'UTAH': 'UT', 'VERMONT': 'VT', 'VIRGINIA': 'VA', 'WASHINGTON': 'WA',
    'WEST VIRGINIA': 'WV', 'WISCONSIN': 'WI', 'WYOMING': 'WY', 'PUERTO RICO': 'PR', 'GUAM': 'GU', 'VIRGIN ISLANDS': 'VI',
    'AMERICAN SAMOA': 'AS', 'NORTHERN MARIANA ISLANDS': 'MP'} %}

{# The code of a state or territory, from its code or its name. #}
{% macro sbir_state(column) -%}
case when upper({{ column }}) in ({{ _states.values() | list | literal }}) then upper({{ column }})
    else map([{{ _states.keys() | list | literal }}], [{{ _states.values() | list | literal }}])[upper({{ column }})] end
{%- endmacro %}

{# A grant number as it is compared: without US, commas, blanks, kind code and leading zeros; null when it is none. #}
{% macro sbir_grant(column) -%}
nullif(regexp_extract(regexp_replace(upper({{ column }}), '[\s,./-]', '', 'g'), '^(?:US)?((?:D|RE|PP|H|T)?)0*([1-9]\d{2,7})(?:[A-Z]\d?)?$', 1)
    || regexp_extract(regexp_replace(upper({{ column }}), '[\s,./-]', '', 'g'), '^(?:US)?((?:D|RE|PP|H|T)?)0*([1-9]\d{2,7})(?:[A-Z]\d?)?$', 2), '')
{%- endmacro %}

{# A day of USPTO: YYYY-MM-DD or YYYYMMDD, or null. #}
{% macro sbir_uspto_date(column) -%}
try_strptime({{ column }}, ['%Y-%m-%d', '%Y%m%d'])::date
{%- endmacro %}

{# ZIP codes as 5 digits, or 5-4; null for anything else. #}
{% macro sbir_zip(column) -%}
case when regexp_full_match({{ column }}, '\d{5}') then {{ column }}
    when regexp_full_match({{ column }}, '\d{5}-?\d{4}') then left({{ column }}, 5) || '-' || right({{ column }}, 4) end
{%- endmacro %}

{# Phones as ddd-ddd-dddd; null for anything else. #}
{% macro sbir_phone(column) -%}
regexp_replace(nullif(regexp_extract(regexp_replace({{ column }}, '( ?(x|ext\.?) ?\d+)$', ''), '^\D*1?\D*(\d{3}\D*\d{3}\D*\d{4})\D*$', 1), ''),
    '^(\d{3})\D*(\d{3})\D*(\d{4})$', '\1-\2-\3')
{%- endmacro %}

{# A long text without what spreadsheets and web pages leave in it. #}
{% macro sbir_prose(column) -%}
trim(replace(replace(replace(replace(replace(replace(replace({{ column }}, '_x000D_', ''), chr(13), ''), '&nbsp;', ' '), '&lt;', '<'),
    '&gt;', '>'), '&quot;', '"'), '&amp;', '&'))
{%- endmacro %}

{% set _agencies = {
    'DEPARTMENT OF DEFENSE': 'DOD', 'DEPARTMENT OF HEALTH AND HUMAN SERVICES': 'HHS', 'DEPARTMENT OF ENERGY': 'DOE',
    'NATIONAL AERONAUTICS AND SPACE ADMINISTRATION': 'NASA', 'NATIONAL SCIENCE FOUNDATION': 'NSF',
    'DEPARTMENT OF AGRICULTURE': 'USDA', 'DEPARTMENT OF HOMELAND SECURITY': 'DHS', 'DEPARTMENT OF TRANSPORTATION': 'DOT',
    'DEPARTMENT OF COMMERCE': 'DOC', 'DEPARTMENT OF EDUCATION': 'ED', 'ENVIRONMENTAL PROTECTION AGENCY': 'EPA',
    'DEPARTMENT OF THE INTERIOR': 'DOI', 'NUCLEAR REGULATORY COMMISSION': 'NRC', 'DEPARTMENT OF VETERANS AFFAIRS': 'VA',
    'DEPARTMENT OF JUSTICE': 'DOJ', 'DEPARTMENT OF LABOR': 'DOL', 'SMALL BUSINESS ADMINISTRATION': 'SBA'} %}

{% macro sbir_agency_code(column) -%}
map([{{ _agencies.keys() | list | literal }}], [{{ _agencies.values() | list | literal }}])[upper({{ column }})]
{%- endmacro %}

{% macro sbir_entity_id(column) -%}
'E:' || md5({{ sbir_name(column) }})
{%- endmacro %}
