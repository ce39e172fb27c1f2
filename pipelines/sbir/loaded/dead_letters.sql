-- Every row that the graph did not take, with the reason. The load that tries it next is the next that runs.
{% for nodes in ['companies', 'awards', 'patents', 'cet_areas'] %}
select 'loaded.{{ nodes }}' as asset, kind, key, null::varchar as end_key, reason, row from {{ ref('loaded.' ~ nodes) }} where status = 'dead_letter'
union all
{% endfor %}
{% for relations in ['relations', 'award_cet_relationships', 'company_cet_relationships'] %}
select 'loaded.{{ relations }}', kind, start_key, end_key, reason, row from {{ ref('loaded.' ~ relations) }} where status = 'dead_letter'
{% if not loop.last %}union all{% endif %}
{% endfor %}
