"""Which tensors llama.cpp may read of each family: `python -m tools.family_tensors` wrote this.

In layers, then outside; without the endings of weights and biases. Source: the code in the library
of llama.cpp b11549, and what its converter may write (gguf-py/gguf/constants.py).
"""

from __future__ import annotations

from collections.abc import Mapping

# fmt: off
READ: Mapping[str, tuple[str, str]] = {
    "afmoe": (
        (
            "attn_gate attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv "
            "attn_v exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up ffn_up_exps ffn_up_shexp "
            "post_attention_norm post_ffw_norm"
        ),
        "output output_norm token_embd",
    ),
    "apertus": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_rot_embd "
            "attn_v ffn_down ffn_gate ffn_norm ffn_up"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "arcee": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "arctic": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_gate ffn_gate_exps ffn_gate_inp ffn_norm ffn_norm_exps ffn_up "
            "ffn_up_exps"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "arwkv7": (
        (
            "attn_norm ffn_down ffn_gate ffn_norm ffn_up time_mix_a0 time_mix_a1 time_mix_a2 "
            "time_mix_g1 time_mix_g2 time_mix_k_a time_mix_k_k time_mix_key time_mix_lerp_fused "
            "time_mix_ln time_mix_output time_mix_r_k time_mix_receptance time_mix_v0 time_mix_v1 "
            "time_mix_v2 time_mix_value time_mix_w0 time_mix_w1 time_mix_w2"
        ),
        "output output_norm token_embd token_embd_norm",
    ),
    "baichuan": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "bailingmoe": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down_exps ffn_down_shexp "
            "ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "bailingmoe2": (
        (
            "attn_k_norm attn_norm attn_output attn_q_norm attn_qkv exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp layer_output_norm nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm"
        ),
        "output output_norm token_embd",
    ),
    "bailingmoe3": (
        (
            "attn_gate attn_k attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_norm attn_output attn_q "
            "attn_q_a attn_q_a_norm attn_q_b attn_qkv attn_v attn_v_b exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp layer_output_norm nextn.eh_proj nextn.enorm "
            "nextn.hnorm ssm_a ssm_beta ssm_conv1d_k ssm_conv1d_q ssm_conv1d_v ssm_dt ssm_f_a "
            "ssm_g_a ssm_norm"
        ),
        "output output_norm token_embd",
    ),
    "bert": (
        (
            "attn_k attn_output attn_output_norm attn_q attn_qkv attn_v ffn_down ffn_up "
            "layer_output_norm"
        ),
        "cls cls.output output_norm position_embd token_embd token_embd_norm token_types",
    ),
    "bitnet": (
        (
            "attn_k attn_norm attn_output attn_q attn_sub_norm attn_v ffn_down ffn_gate ffn_norm "
            "ffn_sub_norm ffn_up"
        ),
        "output_norm token_embd",
    ),
    "bloom": (
        "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up",
        "output output_norm token_embd token_embd_norm",
    ),
    "chameleon": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "output output_norm token_embd",
    ),
    "chatglm": (
        "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_norm ffn_up",
        "output output_norm rope_freqs token_embd",
    ),
    "codeshell": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_norm "
            "ffn_up"
        ),
        "output output_norm position_embd token_embd",
    ),
    "cogvlm": (
        (
            "attn_norm attn_output attn_qkv ffn_down ffn_gate ffn_norm ffn_up vis_attn_output "
            "vis_attn_qkv vis_down vis_gate vis_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "cohere2": (
        "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_up",
        "output_norm token_embd",
    ),
    "cohere2moe": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_down_exps "
            "ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_gate_up_exps "
            "ffn_up ffn_up_exps ffn_up_shexp nextn.eh_proj nextn.embed_tokens nextn.enorm "
            "nextn.hnorm nextn.shared_head_head nextn.shared_head_norm"
        ),
        "output output_norm token_embd",
    ),
    "command-r": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_up"
        ),
        "output_norm token_embd",
    ),
    "dbrx": (
        (
            "attn_norm attn_output attn_output_norm attn_qkv ffn_down_exps ffn_gate_exps "
            "ffn_gate_inp ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "deci": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_gate ffn_gate_exps ffn_gate_inp ffn_norm ffn_up ffn_up_exps"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "deepseek": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "deepseek2": (
        (
            "attn_k attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm attn_output attn_q "
            "attn_q_a attn_q_a_norm attn_q_b attn_rot_embd attn_v attn_v_b exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_gate_up_exps ffn_norm ffn_up ffn_up_exps ffn_up_shexp nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "deepseek2-ocr": (
        (
            "attn_k attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm attn_output attn_q "
            "attn_q_a attn_q_a_norm attn_q_b attn_qkv attn_rot_embd attn_v attn_v_b exp_probs_b "
            "ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp "
            "ffn_gate_shexp ffn_gate_up_exps ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "deepseek32": (
        (
            "attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_norm attn_output attn_q_a attn_q_a_norm "
            "attn_q_b attn_v_b exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate "
            "ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up ffn_up_exps ffn_up_shexp "
            "indexer.attn_k indexer.attn_q_b indexer.k_norm indexer.proj nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm"
        ),
        "output output_norm token_embd",
    ),
    "dots1": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm token_embd",
    ),
    "dream": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "ernie4_5": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm token_embd",
    ),
    "ernie4_5-moe": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm token_embd",
    ),
    "eurobert": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output_norm token_embd",
    ),
    "exaone": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "exaone-moe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up ffn_up_exps ffn_up_shexp nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "exaone4": (
        (
            "attn_k attn_k_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down ffn_gate "
            "ffn_up nextn.eh_proj nextn.enorm nextn.hnorm nextn.shared_head_norm "
            "post_attention_norm post_ffw_norm"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "falcon": (
        "attn_norm attn_norm_2 attn_output attn_qkv ffn_down ffn_up",
        "output output_norm token_embd",
    ),
    "falcon-h1": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up ssm_a ssm_conv1d ssm_d ssm_dt ssm_in ssm_norm ssm_out"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "gemma": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output_norm token_embd",
    ),
    "gemma-embedding": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up post_attention_norm post_ffw_norm"
        ),
        "dense_2 dense_3 output output_norm token_embd",
    ),
    "gemma-embedding2": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up inp_gate layer_output_scale post_attention_norm post_ffw_norm "
            "post_norm proj"
        ),
        "output output_norm per_layer_model_proj per_layer_proj_norm token_embd",
    ),
    "gemma2": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up post_attention_norm post_ffw_norm"
        ),
        "output_norm token_embd",
    ),
    "gemma3": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up post_attention_norm post_ffw_norm"
        ),
        "dense_2 dense_3 output output_norm token_embd",
    ),
    "gemma3n": (
        (
            "altup_correct_coef altup_correct_scale altup_predict_coef altup_router "
            "altup_router_norm attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm "
            "attn_qkv attn_v ffn_down ffn_gate ffn_norm ffn_up inp_gate laurel_l laurel_post_norm "
            "laurel_r post_attention_norm post_ffw_norm post_norm proj"
        ),
        (
            "altup_proj altup_unembd_proj output output_norm per_layer_model_proj "
            "per_layer_proj_norm per_layer_token_embd token_embd"
        ),
    ),
    "gemma4": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_down_exps ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_up_exps ffn_norm ffn_up "
            "ffn_up_exps inp_gate layer_output_scale post_attention_norm post_ffw_norm "
            "post_ffw_norm_1 post_ffw_norm_2 post_norm pre_ffw_norm_2 proj"
        ),
        (
            "output output_norm per_layer_model_proj per_layer_proj_norm per_layer_token_embd "
            "rope_freqs token_embd"
        ),
    ),
    "glm-dsa": (
        (
            "attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm attn_output attn_q "
            "attn_q_a attn_q_a_norm attn_q_b attn_rot_embd attn_v_b exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp indexer.attn_k indexer.attn_q_b "
            "indexer.k_norm indexer.proj nextn.eh_proj nextn.embed_tokens nextn.enorm nextn.hnorm "
            "nextn.shared_head_head nextn.shared_head_norm"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "glm4": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_norm ffn_up "
            "nextn.eh_proj nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm post_attention_norm post_ffw_norm"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "glm4moe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_up ffn_up_exps ffn_up_shexp nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm post_attention_norm"
        ),
        "output output_norm token_embd",
    ),
    "gpt-oss": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_sinks attn_v ffn_down_exps "
            "ffn_gate_exps ffn_gate_inp ffn_up_exps post_attention_norm"
        ),
        "output output_norm token_embd",
    ),
    "gpt2": (
        "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up",
        "output output_norm position_embd token_embd",
    ),
    "gptneox": (
        "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up",
        "output output_norm token_embd",
    ),
    "granite": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_down_exps "
            "ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up "
            "ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "granite_swa": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_sinks attn_v ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_up_exps "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "granitehybrid": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_down_exps "
            "ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up "
            "ffn_up_exps ffn_up_shexp ssm_a ssm_conv1d ssm_d ssm_dt ssm_in ssm_norm ssm_out"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "granitemoe": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_down_exps "
            "ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up "
            "ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "grok": (
        (
            "attn_k attn_norm attn_output attn_output_norm attn_q attn_qkv attn_rot_embd attn_v "
            "ffn_down ffn_down_exps ffn_gate ffn_gate_exps ffn_gate_inp ffn_norm ffn_up "
            "ffn_up_exps layer_output_norm post_ffw_norm"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "grovemoe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_chexps ffn_down_exps ffn_gate_chexps ffn_gate_exps ffn_gate_inp ffn_norm "
            "ffn_up_chexps ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "hrm_text": (
        "attn_gate attn_k attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_up",
        "hrm.z_l_init output token_embd",
    ),
    "hunyuan-dense": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "output output_norm token_embd",
    ),
    "hunyuan-moe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_down_shexp ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm "
            "ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "hunyuan_vl": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "output output_norm token_embd",
    ),
    "hy_v3": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_gate_up_exps ffn_norm ffn_up ffn_up_exps "
            "ffn_up_shexp nextn.eh_proj nextn.embed_tokens nextn.enorm nextn.hnorm "
            "nextn.shared_head_head nextn.shared_head_norm"
        ),
        "output output_norm token_embd",
    ),
    "internlm2": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up"
        ),
        "output output_norm token_embd",
    ),
    "jais": (
        "attn_norm attn_output attn_qkv ffn_down ffn_gate ffn_norm ffn_up",
        "output output_norm token_embd",
    ),
    "jais2": (
        "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_norm ffn_up",
        "output output_norm token_embd",
    ),
    "jamba": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_down_exps ffn_gate "
            "ffn_gate_exps ffn_gate_inp ffn_norm ffn_up ffn_up_exps ssm_a ssm_b_norm ssm_c_norm "
            "ssm_conv1d ssm_d ssm_dt ssm_dt_norm ssm_in ssm_out ssm_x"
        ),
        "output output_norm token_embd",
    ),
    "jina-bert-v2": (
        (
            "attn_k attn_k_norm attn_norm_2 attn_output attn_output_norm attn_q attn_q_norm "
            "attn_qkv attn_v ffn_down ffn_gate ffn_up layer_output_norm"
        ),
        "cls token_embd token_embd_norm token_types",
    ),
    "jina-bert-v3": (
        (
            "attn_k attn_output attn_output_norm attn_q attn_qkv attn_v ffn_down ffn_up "
            "layer_output_norm"
        ),
        "output_norm token_embd token_embd_norm token_types",
    ),
    "k2-horizon": (
        (
            "attn_gate attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_v "
            "attn_v_exps attn_v_gate exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate "
            "ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm token_embd",
    ),
    "kimi-k3": (
        (
            "attn_gate attn_k attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm "
            "attn_output attn_q attn_q_a attn_q_a_norm attn_q_b attn_qkv attn_res_score attn_v "
            "attn_v_b exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_norm ffn_res_score ffn_routed_down ffn_routed_norm "
            "ffn_routed_up ffn_up ffn_up_exps ffn_up_shexp ssm_a ssm_beta ssm_conv1d_k "
            "ssm_conv1d_q ssm_conv1d_v ssm_dt ssm_f_a ssm_f_b ssm_g ssm_norm"
        ),
        "output output_norm output_res_score token_embd",
    ),
    "kimi-linear": (
        (
            "attn_k attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm attn_output attn_q "
            "attn_q_a attn_q_a_norm attn_q_b attn_qkv attn_v attn_v_b exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp ssm_a ssm_beta ssm_conv1d_k ssm_conv1d_q "
            "ssm_conv1d_v ssm_dt ssm_f_a ssm_f_b ssm_g_a ssm_g_b ssm_norm"
        ),
        "output output_norm token_embd",
    ),
    "laguna": (
        (
            "attn_gate attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv "
            "attn_v exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm token_embd",
    ),
    "lfm2": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "exp_probs_b ffn_down ffn_down_exps ffn_gate ffn_gate_exps ffn_gate_inp ffn_norm "
            "ffn_up ffn_up_exps shortconv.conv shortconv.in_proj shortconv.out_proj"
        ),
        "cls cls.norm cls.output dense_2 output token_embd token_embd_norm token_types",
    ),
    "lfm2moe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "exp_probs_b ffn_down ffn_down_exps ffn_gate ffn_gate_exps ffn_gate_inp ffn_norm "
            "ffn_up ffn_up_exps shortconv.conv shortconv.in_proj shortconv.out_proj"
        ),
        "dense_2 output token_embd token_embd_norm",
    ),
    "llada": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "llada-moe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "llama": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "llama-embed": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "llama4": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "maincoder": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "output output_norm token_embd",
    ),
    "mamba": (
        "attn_norm ssm_a ssm_conv1d ssm_d ssm_dt ssm_in ssm_out ssm_x",
        "output output_norm token_embd",
    ),
    "mamba2": (
        "attn_norm ssm_a ssm_conv1d ssm_d ssm_dt ssm_in ssm_norm ssm_out",
        "output output_norm token_embd",
    ),
    "maple": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "mellum": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "mimo2": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_sinks attn_v exp_probs_b ffn_down "
            "ffn_down_exps ffn_gate ffn_gate_exps ffn_gate_inp ffn_norm ffn_up ffn_up_exps "
            "layer_output_norm nextn.eh_proj nextn.embed_tokens nextn.enorm nextn.hnorm "
            "nextn.shared_head_head nextn.shared_head_norm"
        ),
        "output output_norm token_embd",
    ),
    "minicpm": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "minicpm3": (
        (
            "attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm attn_output attn_q_a attn_q_a_norm "
            "attn_q_b ffn_down ffn_gate ffn_norm ffn_up"
        ),
        "output output_norm rope_factors_long rope_factors_short token_embd",
    ),
    "minimax-01": (
        (
            "attn_gate attn_k attn_norm attn_norm_2 attn_output attn_q attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "minimax-m2": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "exp_probs_b ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "mistral3": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "mistral4": (
        (
            "attn_k_b attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_norm attn_output attn_q "
            "attn_q_a attn_q_a_norm attn_q_b attn_rot_embd attn_v_b exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_gate_up_exps ffn_norm ffn_up ffn_up_exps ffn_up_shexp nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "modern-bert": (
        "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up",
        "cls cls.norm cls.output output_norm token_embd token_embd_norm token_types",
    ),
    "mpt": (
        (
            "attn_k_norm attn_norm attn_output attn_q_norm attn_qkv ffn ffn.act ffn_down ffn_norm "
            "ffn_up"
        ),
        "output output_norm position_embd token_embd",
    ),
    "nanbeige": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "nemotron": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "nemotron_h": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate_inp ffn_latent_down ffn_latent_up ffn_up "
            "ffn_up_exps ffn_up_shexp nextn.eh_proj nextn.enorm nextn.hnorm "
            "nextn.shared_head_norm post_attention_norm ssm_a ssm_conv1d ssm_d ssm_dt ssm_in "
            "ssm_norm ssm_out"
        ),
        "output output_norm token_embd",
    ),
    "nemotron_h_moe": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate_inp ffn_latent_down ffn_latent_up ffn_up "
            "ffn_up_exps ffn_up_shexp nextn.eh_proj nextn.enorm nextn.hnorm "
            "nextn.shared_head_norm post_attention_norm ssm_a ssm_conv1d ssm_d ssm_dt ssm_in "
            "ssm_norm ssm_out"
        ),
        "output output_norm token_embd",
    ),
    "neo-bert": (
        "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up",
        "cls cls.output enc.output_norm token_embd",
    ),
    "nomic-bert": (
        (
            "attn_k attn_output attn_output_norm attn_q attn_qkv attn_v ffn_down ffn_gate ffn_up "
            "layer_output_norm"
        ),
        "output_norm position_embd token_embd token_embd_norm token_types",
    ),
    "nomic-bert-moe": (
        (
            "attn_k attn_output attn_output_norm attn_q attn_qkv attn_v ffn_down ffn_down_exps "
            "ffn_gate_inp ffn_up ffn_up_exps layer_output_norm"
        ),
        "output_norm position_embd token_embd token_embd_norm token_types",
    ),
    "olmo": (
        "attn_k attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_up",
        "output token_embd",
    ),
    "olmo2": (
        (
            "attn_k attn_k_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down ffn_gate "
            "ffn_up post_attention_norm post_ffw_norm"
        ),
        "output output_norm token_embd",
    ),
    "olmoe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "openelm": (
        (
            "attn_k_norm attn_norm attn_output attn_q_norm attn_qkv ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output_norm token_embd",
    ),
    "orion": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "paddleocr": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v exp_probs_b ffn_down "
            "ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp "
            "ffn_norm ffn_up ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm token_embd",
    ),
    "pangu-embedded": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "phi2": (
        "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_norm ffn_up",
        "output output_norm token_embd",
    ),
    "phi3": (
        "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_norm ffn_up",
        "output output_norm rope_factors_long rope_factors_short token_embd",
    ),
    "phimoe": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down_exps ffn_gate_exps "
            "ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm rope_factors_long rope_factors_short token_embd",
    ),
    "plamo": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_gate "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "plamo2": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_rot_embd "
            "ffn_down ffn_gate ffn_norm ffn_up post_attention_norm post_ffw_norm ssm_a ssm_b_norm "
            "ssm_c_norm ssm_conv1d ssm_d ssm_dt ssm_dt_norm ssm_in ssm_out ssm_x"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "plamo3": (
        (
            "attn_k_norm attn_norm attn_output attn_q_norm attn_qkv ffn_down ffn_norm ffn_up "
            "post_attention_norm post_ffw_norm"
        ),
        "output output_norm token_embd",
    ),
    "pockettts": (
        "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_norm ffn_up",
        "output_norm token_embd",
    ),
    "qwen": (
        "attn_norm attn_output attn_qkv attn_rot_embd ffn_down ffn_gate ffn_norm ffn_up",
        "output output_norm rope_freqs token_embd",
    ),
    "qwen2": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "qwen2moe": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down_exps ffn_down_shexp "
            "ffn_gate_exps ffn_gate_inp ffn_gate_inp_shexp ffn_gate_shexp ffn_norm ffn_up_exps "
            "ffn_up_shexp"
        ),
        "output output_norm token_embd",
    ),
    "qwen2vl": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_norm "
            "ffn_up"
        ),
        "output output_norm token_embd",
    ),
    "qwen3": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "cls.output output output_norm rope_freqs token_embd",
    ),
    "qwen35": (
        (
            "attn_gate attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv "
            "attn_v ffn_down ffn_gate ffn_up nextn.eh_proj nextn.embed_tokens nextn.enorm "
            "nextn.hnorm nextn.shared_head_head nextn.shared_head_norm post_attention_norm ssm_a "
            "ssm_alpha ssm_beta ssm_conv1d ssm_dt ssm_norm ssm_out"
        ),
        "cls.output output output_norm token_embd",
    ),
    "qwen35moe": (
        (
            "attn_gate attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv "
            "attn_v ffn_down_exps ffn_down_shexp ffn_gate_exps ffn_gate_inp ffn_gate_inp_shexp "
            "ffn_gate_shexp ffn_gate_up_exps ffn_up_exps ffn_up_shexp nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm post_attention_norm ssm_a ssm_alpha ssm_beta ssm_conv1d "
            "ssm_dt ssm_norm ssm_out"
        ),
        "output output_norm token_embd",
    ),
    "qwen3moe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "qwen3next": (
        (
            "attn_gate attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv "
            "attn_v ffn_down_exps ffn_down_shexp ffn_gate_exps ffn_gate_inp ffn_gate_inp_shexp "
            "ffn_gate_shexp ffn_gate_up_exps ffn_up_exps ffn_up_shexp nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm post_attention_norm ssm_a ssm_ba ssm_conv1d ssm_dt ssm_in "
            "ssm_norm ssm_out"
        ),
        "output output_norm token_embd",
    ),
    "qwen3tts": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "cls.output output output_norm token_embd",
    ),
    "qwen3vl": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "cls.output output output_norm rope_freqs token_embd",
    ),
    "qwen3vlmoe": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "refact": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_down_exps "
            "ffn_down_shexp ffn_gate ffn_gate_exps ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up "
            "ffn_up_exps ffn_up_shexp"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "rnd1": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v "
            "ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_norm ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "rwkv6": (
        (
            "attn_norm attn_norm_2 channel_mix_key channel_mix_lerp_k channel_mix_lerp_r "
            "channel_mix_receptance channel_mix_value time_mix_decay time_mix_decay_w1 "
            "time_mix_decay_w2 time_mix_first time_mix_gate time_mix_key time_mix_lerp_fused "
            "time_mix_lerp_g time_mix_lerp_k time_mix_lerp_r time_mix_lerp_v time_mix_lerp_w "
            "time_mix_lerp_x time_mix_ln time_mix_output time_mix_receptance time_mix_value "
            "time_mix_w1 time_mix_w2"
        ),
        "output output_norm token_embd token_embd_norm",
    ),
    "rwkv6qwen2": (
        (
            "attn_norm ffn_down ffn_gate ffn_norm ffn_up time_mix_decay time_mix_decay_w1 "
            "time_mix_decay_w2 time_mix_first time_mix_gate time_mix_key time_mix_lerp_fused "
            "time_mix_lerp_g time_mix_lerp_k time_mix_lerp_r time_mix_lerp_v time_mix_lerp_w "
            "time_mix_lerp_x time_mix_ln time_mix_output time_mix_receptance time_mix_value "
            "time_mix_w1 time_mix_w2"
        ),
        "output output_norm token_embd",
    ),
    "rwkv7": (
        (
            "attn_norm attn_norm_2 channel_mix_key channel_mix_lerp_k channel_mix_value "
            "time_mix_a0 time_mix_a1 time_mix_a2 time_mix_g1 time_mix_g2 time_mix_k_a "
            "time_mix_k_k time_mix_key time_mix_lerp_fused time_mix_ln time_mix_output "
            "time_mix_r_k time_mix_receptance time_mix_v0 time_mix_v1 time_mix_v2 time_mix_value "
            "time_mix_w0 time_mix_w1 time_mix_w2"
        ),
        "output output_norm token_embd token_embd_norm",
    ),
    "seed_oss": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate ffn_up "
            "post_attention_norm"
        ),
        "output output_norm token_embd",
    ),
    "smallthinker": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_down_exps ffn_gate "
            "ffn_gate_exps ffn_gate_inp ffn_norm ffn_up ffn_up_exps"
        ),
        "output output_norm token_embd",
    ),
    "smollm3": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "spark2_5": (
        (
            "attn_gate attn_k attn_norm attn_output attn_q attn_qkv attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up"
        ),
        "output output_norm token_embd",
    ),
    "stablelm": (
        (
            "attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down "
            "ffn_gate ffn_norm ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "starcoder": (
        "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up",
        "output output_norm position_embd token_embd",
    ),
    "starcoder2": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_norm "
            "ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
    "step35": (
        (
            "attn_gate attn_k attn_k_norm attn_norm attn_output attn_q attn_q_norm attn_qkv "
            "attn_v exp_probs_b ffn_down ffn_down_exps ffn_down_shexp ffn_gate ffn_gate_exps "
            "ffn_gate_inp ffn_gate_shexp ffn_norm ffn_up ffn_up_exps ffn_up_shexp nextn.eh_proj "
            "nextn.embed_tokens nextn.enorm nextn.hnorm nextn.shared_head_head "
            "nextn.shared_head_norm"
        ),
        "output output_norm rope_factors_long rope_factors_short rope_freqs token_embd",
    ),
    "t5encoder": (
        "attn_k attn_norm attn_o attn_q attn_rel_b attn_v ffn_down ffn_gate ffn_norm ffn_up",
        "enc.output_norm output token_embd",
    ),
    "talkie": (
        (
            "attn_k attn_output attn_q attn_q_norm attn_qkv attn_v ffn_down ffn_gate ffn_up "
            "layer_output_scale"
        ),
        "output token_embd",
    ),
    "xverse": (
        (
            "attn_k attn_norm attn_output attn_q attn_qkv attn_rot_embd attn_v ffn_down ffn_gate "
            "ffn_norm ffn_up"
        ),
        "output output_norm rope_freqs token_embd",
    ),
}
