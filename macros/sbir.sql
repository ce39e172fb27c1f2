{# How values of awards are cleaned. Used by pipelines/sbir; every macro takes SQL and gives SQL. #}

{# A text without the blanks around it; null where the source wrote one of its words for nothing. #}
{% macro sbir_text(column) -%}
nullif(case when lower(trim({{ column }}, ' 	
' || chr(13) || chr(160))) in ('-', 'n/a', 'na', 'nan', 'none', 'null', '\n') then '' else trim({{ column }}, ' 	
' || chr(13) || chr(160)) end, '')
{%- endmacro %}

{# The same, with one blank where there were several. #}
{% macro sbir_words(column) -%}
regexp_replace({{ sbir_text(column) }}, '\s+', ' ', 'g')
{%- endmacro %}

{% macro sbir_amount(column) -%}
try_cast(replace(replace({{ sbir_text(column) }}, '$', ''), ',', '') as decimal(18, 2))
{%- endmacro %}

{# A date as the source format declares it, or null. No other spelling is tried, and a year of two digits is none. #}
{% macro sbir_date(column, format) -%}
case {{ format }}
{%- for name, spelled in var('sbir.extract.date_formats').items() %}
    when '{{ name }}' then try_strptime({{ sbir_text(column) }}, [{{ spelled | literal }}])
{%- endfor %} end::date
{%- endmacro %}

{% macro sbir_flag(column) -%}
case upper({{ sbir_text(column) }}) when 'Y' then true when 'YES' then true when 'N' then false when 'NO' then false end
{%- endmacro %}

{# I, 1, Phase 1, PHASE I ... -> Phase I #}
{% macro sbir_phase(column) -%}
case regexp_replace(upper({{ sbir_text(column) }}), '^PHASE\s*', '')
    when 'I' then 'Phase I' when '1' then 'Phase I' when 'II' then 'Phase II' when '2' then 'Phase II'
    when 'III' then 'Phase III' when '3' then 'Phase III' end
{%- endmacro %}

{% macro sbir_program(column) -%}
case upper({{ sbir_text(column) }}) when 'SBIR' then 'SBIR' when 'STTR' then 'STTR' when 'SBIR/STTR' then 'SBIR' end
{%- endmacro %}

{# Nine digits: without the apostrophe of a spreadsheet, with the zeros that it lost; null when it cannot be one. #}
{% macro sbir_duns(column) -%}
nullif(case when regexp_full_match(trim({{ sbir_text(column) }}, ''''), '\d{7,9}')
    then lpad(trim({{ sbir_text(column) }}, ''''), 9, '0') end, '000000000')
{%- endmacro %}

{% macro sbir_uei(column) -%}
case when regexp_full_match(upper({{ sbir_text(column) }}), '[A-Z0-9]{12}') then upper({{ sbir_text(column) }}) end
{%- endmacro %}

{# A company's name as it is compared: no accents, punctuation, legal form; usual words abbreviated. #}
{% macro sbir_name(column) -%}
trim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
    ' ' || regexp_replace(replace(lower(strip_accents({{ column }})), '''', ''), '[^a-z0-9]+', ' ', 'g') || ' ',
    ' (inc|incorporated|llc|ltd|limited|corp|corporation|co|company|lp|llp|plc|pllc|l l c|the) ', '  ', 'g'),
    ' (technologies|technology) ', ' tech ', 'g'),
    ' (systems|system) ', ' sys ', 'g'),
    ' (international) ', ' intl ', 'g'),
    ' (laboratories|laboratory|labs) ', ' lab ', 'g'),
    '\s+', ' ', 'g'))
{%- endmacro %}

{# How many of these columns say something. #}
{% macro sbir_filled(columns) -%}
{% for column in columns %}(coalesce({{ column }}, '') not in ('', '-', 'N/A'))::int{{ ' + ' if not loop.last }}{% endfor %}
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
case when upper({{ sbir_text(column) }}) in ({{ _states.values() | list | literal }}) then upper({{ sbir_text(column) }})
    else map([{{ _states.keys() | list | literal }}], [{{ _states.values() | list | literal }}])[upper({{ sbir_text(column) }})] end
{%- endmacro %}

{# A grant number as it is compared: without US, commas, blanks, kind code and leading zeros; null when it is none. #}
{% macro sbir_grant(column) -%}
nullif(regexp_extract(regexp_replace(upper({{ column }}), '[\s,./-]', '', 'g'), '^(?:US)?((?:D|RE|PP|H|T)?)0*([1-9]\d{2,7})(?:[A-Z]\d?)?$', 1)
    || regexp_extract(regexp_replace(upper({{ column }}), '[\s,./-]', '', 'g'), '^(?:US)?((?:D|RE|PP|H|T)?)0*([1-9]\d{2,7})(?:[A-Z]\d?)?$', 2), '')
{%- endmacro %}

{# A day of USPTO: YYYY-MM-DD or YYYYMMDD, or null. #}
{% macro sbir_uspto_date(column) -%}
try_strptime({{ sbir_text(column) }}, ['%Y-%m-%d', '%Y%m%d'])::date
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
