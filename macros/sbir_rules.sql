{# What must be true of a line of an award file: (name of the rule, when it is broken). One list, one scan.
   The names on the right are columns of `typed` in pipelines/sbir/validated/sbir_award_lines.sql; `x_text` is what
   the file says, cleaned of blanks and words for nothing, and x is what it means. #}

{% set _errors = [
    ('company_missing', 'company_name is null'),
    ('title_missing', 'award_title is null'),
    ('agency_missing', 'agency is null'),
    ('phase_unknown', 'phase is null'),
    ('program_unknown', 'program is null'),
    ('award_year_missing', 'award_year is null'),
    ('award_year_out_of_range', 'award_year not between ' ~ var('sbir.data_quality.award_year_min') ~ ' and this_year + 1'),
    ('award_amount_missing', 'award_amount_text is null'),
    ('award_amount_not_a_number', 'award_amount_text is not null and award_amount is null'),
    ('award_amount_not_positive', 'award_amount <= 0'),
    ('award_key_missing', 'agency_tracking_number is null and contract is null'),
] %}

{% set _phone = "'^(\\+?1[ .-]?)?(\\(\\d{3}\\) ?|\\d{3}[ .-]?)\\d{3}[ .-]?\\d{4}( ?(x|ext\\.?) ?\\d+)?$'" %}
{% set _email = "'^[^@\\s]+@[^@\\s]+\\.[^@\\s.]+$'" %}

{% set _warnings = [
    ('amount_above_limit', 'award_amount > ' ~ var('sbir.data_quality.amount_warning')),
    ('uei_shape', 'uei_text is not null and uei is null'),
    ('duns_shape', "duns_text is not null and not regexp_full_match(trim(duns_text, ''''), '\\d{9}')"),
    ('duns_filler', "trim(duns_text, '''') = '000000000'"),
    ('contact_email_shape', 'not regexp_matches(contact_email, ' ~ _email ~ ')'),
    ('pi_email_shape', 'not regexp_matches(pi_email, ' ~ _email ~ ')'),
    ('state_unknown', 'state_text is not null and state is null'),
    ('zip_shape', "not regexp_full_match(zip, '\\d{5}(-?\\d{4})?')"),
    ('contact_phone_shape', 'not regexp_matches(contact_phone, ' ~ _phone ~ ')'),
    ('pi_phone_shape', 'not regexp_matches(pi_phone, ' ~ _phone ~ ')'),
    ('award_date_unreadable', 'award_date_text is not null and award_date is null'),
    ('contract_end_date_unreadable', 'contract_end_date_text is not null and contract_end_date is null'),
    ('end_before_award', 'contract_end_date < award_date'),
    ('year_differs', 'award_year <> year(award_date)'),
    ('phase_program_mismatch', "program = 'STTR' and ri_name is null"),
] %}

{# The rules of a severity (error, warn) that a line breaks, as a list of their names. #}
{% macro sbir_broken_rules(severity) -%}
string_split(nullif(concat_ws(',',
{%- for name, broken in (_errors if severity == 'error' else _warnings) %}
    case when {{ broken }} then '{{ name }}' end{{ ',' if not loop.last }}
{%- endfor %}), ''), ',')
{%- endmacro %}
