-- Every line of every award file, as text. `line_id` tells lines apart: two lines of a file that are the same word
-- for word have the same one. No column says when a line was loaded, so a file that comes again changes nothing.
{% set columns = [
    'agency_tracking_number', 'company_name', 'award_title', 'agency', 'branch', 'phase', 'program', 'contract',
    'award_date', 'contract_end_date', 'solicitation_number', 'solicitation_year', 'solicitation_close_date',
    'proposal_receipt_date', 'date_of_notification', 'topic_code', 'award_year', 'award_amount', 'uei', 'duns',
    'hubzone_owned', 'socially_and_economically_disadvantaged', 'woman_owned', 'number_employees', 'company_website',
    'address1', 'address2', 'city', 'state', 'zip', 'abstract', 'contact_name', 'contact_title', 'contact_phone',
    'contact_email', 'pi_name', 'pi_title', 'pi_phone', 'pi_email', 'ri_name', 'ri_poc_name', 'ri_poc_phone',
    'research_keywords'] %}
with lines as (
{%- for name, format in [('awards', 'bulk'), ('bulk', 'bulk'), ('latin1', 'bulk'), ('web', 'web'), ('api', 'api')] %}
    {%- if not loop.first %}
    union all by name{% endif %}
    select {{ columns | join(', ') }}, '{{ format }}' as source_format, _file
    from {{ source('sbir_' ~ name) }}
{%- endfor %}
)
select
    {{ columns | join(',\n    ') }},
    source_format,
    md5(concat_ws(chr(31), _file, {% for column in columns %}coalesce({{ column }}, ''){{ ', ' if not loop.last }}{% endfor %})) as line_id,
    _file
from lines
